import { closestMatch } from '../base/closest-match.js';
import { UsageError } from '../base/errors.js';
import { OPTION_NAMES, type OptionName } from './config-options.js';

const SHOWN_LENGTH_MAX = 60;

/** Where an option's value comes from; the first of these that has it wins. */
export type OptionSource = 'flag' | 'environment' | 'file' | 'default';

/** A value as it was written, and how to name the place it was written at. */
export type Given = {
  readonly value: unknown;
  readonly place: string;
  readonly source: OptionSource;
};
export type GivenByName = ReadonlyMap<OptionName, Given>;

export function optionNamed(key: string, place: string): OptionName {
  const name = OPTION_NAMES.find((candidate) => candidate === key);
  if (name !== undefined) return name;
  const near = closestMatch(key, OPTION_NAMES);
  const hint = near === undefined ? '' : ` Did you mean ${near}?`;
  throw new UsageError(`${place}: there is no option ${shown(key)}.${hint}`);
}

/** A value may be nested deeper than the stack of the code that writes it down. */
function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return 'a value nested too deeply';
  }
}

export function shown(value: unknown): string {
  const text = jsonOf(value);
  return text.length > SHOWN_LENGTH_MAX ? `${text.slice(0, SHOWN_LENGTH_MAX)}…` : text;
}
