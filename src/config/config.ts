import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { closestMatch } from '../base/closest-match.js';
import { codeOf, UsageError } from '../base/errors.js';
import { EXIT_CODES } from '../errors/exit-codes.js';
import {
  environmentNameOf,
  flagOf,
  OPTION_NAMES,
  OPTION_ROWS,
  type OptionName,
  type OptionValue,
} from './config-options.js';

const CONFIG_PATH = '/etc/iscsi-nbd/config.yaml';

/** A configuration is a page of settings; anything larger is another file given by mistake. */
const CONFIG_BYTES_MAX = 1 << 20;
const SHOWN_LENGTH_MAX = 60;

/** Where an option's value comes from; the first of these that has it wins. */
type OptionSource = 'flag' | 'environment' | 'file' | 'default';

/** Options without a default, which are absent where nobody gives them. */
type OptionalName =
  | 'initiatorName'
  | 'chapUser'
  | 'chapSecretFile'
  | 'targetChapUser'
  | 'targetChapSecretFile'
  | 'luns'
  | 'cpuAffinity';

type ConfigValues = {
  readonly [Name in Exclude<OptionName, OptionalName>]: OptionValue<Name>;
} & { readonly [Name in OptionalName]?: OptionValue<Name> };

export type Config = {
  readonly values: ConfigValues;
  readonly sources: { readonly [Name in OptionName]: OptionSource };
};

/** A value as it was written, and how to name the place it was written at. */
type Given = {
  readonly value: unknown;
  readonly place: string;
  readonly source: OptionSource;
};
type GivenByName = ReadonlyMap<OptionName, Given>;

type ConfigInputs = {
  /** By flag without dashes, e.g. `removal-latency`; `undefined` where not given. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** `--config`; otherwise `/etc/iscsi-nbd/config.yaml` is read if it exists. */
  readonly configPath?: string;
};

/**
 * Joins flags, environment, configuration file and defaults, in this order of precedence.
 * Throws UsageError that names the flag, the variable, or the file's line and key.
 */
export function loadConfig(inputs: ConfigInputs): Config {
  const file = readConfigFile(inputs.configPath ?? CONFIG_PATH, inputs.configPath !== undefined);
  const fromFile = file === null ? new Map<OptionName, Given>() : parseConfigText(file);
  return joinConfig([givenByFlags(inputs.flags), givenByEnvironment(inputs.environment), fromFile]);
}

/**
 * Options a program gives by name, and defaults for the rest: no file and no environment counts.
 * Throws UsageError that names the option.
 */
export function configOf(options: Readonly<Record<string, unknown>>): Config {
  const given = new Map<OptionName, Given>();
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const name = optionNamed(key, 'The options');
    given.set(name, { value, place: `The option ${name}`, source: 'flag' });
  }
  return joinConfig([given]);
}

/** The file's options by name. Values are checked when they are joined. */
export function parseConfigText(file: {
  readonly path: string;
  readonly text: string;
}): GivenByName {
  const lines = new LineCounter();
  const document = parseDocument(file.text, {
    lineCounter: lines,
    prettyErrors: false,
    // It compares each key with each other one; the options below are looked up.
    uniqueKeys: false,
  });
  const at = (offset: number) => `${file.path}, line ${lines.linePos(offset).line}`;
  const problem = document.errors[0];
  if (problem) {
    throw new UsageError(`${at(problem.pos[0])}: this is not valid YAML: ${problem.message}.`);
  }
  const given = new Map<OptionName, Given>();
  const root = document.contents;
  if (root === null || (isScalar(root) && root.value === null)) return given;
  if (!isMap(root)) {
    throw new UsageError(`${at(0)}: expected lines of "option: value", e.g. queueDepthMax: 64.`);
  }
  for (const pair of root.items) {
    const key = isScalar(pair.key) ? pair.key : undefined;
    const place = at(key?.range?.[0] ?? 0);
    const name = optionNamed(String(key?.value), place);
    if (given.has(name)) throw new UsageError(`${place}: ${name} is given twice.`);
    const node = pair.value;
    if (!isScalar(node) && !isSeq(node)) {
      throw new UsageError(`${place}: ${name} must be ${OPTION_ROWS[name].expects}.`);
    }
    const value: unknown = isScalar(node) ? node.value : node.items.map(scalarOf);
    given.set(name, { value, place: `${place}: ${name}`, source: 'file' });
  }
  return given;
}

function joinConfig(layers: readonly GivenByName[]): Config {
  const values: Partial<Record<OptionName, unknown>> = {};
  const sources: Partial<Record<OptionName, OptionSource>> = {};
  for (const name of OPTION_NAMES) {
    const row = OPTION_ROWS[name];
    // Every layer is checked, also where a higher one wins: a wrong line never lies in wait.
    for (const layer of layers) {
      const given = layer.get(name);
      if (given === undefined) continue;
      const parsed = row.schema.safeParse(given.value);
      if (!parsed.success) {
        throw new UsageError(`${given.place} must be ${row.expects}, not ${shown(given.value)}.`);
      }
      if (sources[name] !== undefined) continue;
      values[name] = parsed.data;
      sources[name] = given.source;
    }
    if (sources[name] !== undefined) continue;
    sources[name] = 'default';
    if ('defaultValue' in row) values[name] = row.defaultValue;
  }
  const config = { values: values as ConfigValues, sources: sources as Config['sources'] };
  return withPathsAllowed(withBurstsInOrder(config));
}

/** Several sessions to one portal are paths, and need `multipath`. */
function withPathsAllowed(config: Config): Config {
  const { multipath, sessionsPerPortal } = config.values;
  if (multipath === 'auto' || sessionsPerPortal === 1) return config;
  throw new UsageError(
    `sessionsPerPortal (${sessionsPerPortal}) needs multipath auto, and it is off: several ` +
      'sessions to one portal are paths of the same disks.',
  );
}

/**
 * FirstBurstLength is at most MaxBurstLength (RFC 7143 §13.14 (FirstBurstLength)). A default
 * follows the other value; two contradicting values are an error.
 */
function withBurstsInOrder(config: Config): Config {
  const { firstBurstLength, maxBurstLength } = config.values;
  if (firstBurstLength <= maxBurstLength) return config;
  const { values, sources } = config;
  if (sources.firstBurstLength === 'default') {
    return { sources, values: { ...values, firstBurstLength: maxBurstLength } };
  }
  if (sources.maxBurstLength === 'default') {
    return { sources, values: { ...values, maxBurstLength: firstBurstLength } };
  }
  throw new UsageError(
    `firstBurstLength (${firstBurstLength}) must not be larger than ` +
      `maxBurstLength (${maxBurstLength}).`,
  );
}

function givenByFlags(flags: ConfigInputs['flags']): GivenByName {
  const given = new Map<OptionName, Given>();
  for (const name of OPTION_NAMES) {
    const flag = flagOf(name);
    const value = flags[flag];
    if (value !== undefined) given.set(name, { value, place: `--${flag}`, source: 'flag' });
  }
  return given;
}

function givenByEnvironment(environment: ConfigInputs['environment']): GivenByName {
  const given = new Map<OptionName, Given>();
  const libiscsi: Partial<Record<OptionName, string>> = {
    chapUser: 'LIBISCSI_CHAP_USERNAME',
    targetChapUser: 'LIBISCSI_CHAP_TARGET_USERNAME',
  };
  for (const name of OPTION_NAMES) {
    for (const variable of [environmentNameOf(name), libiscsi[name]]) {
      const value = variable === undefined ? undefined : environment[variable];
      if (value === undefined || value === '' || given.has(name)) continue;
      given.set(name, { value, place: `The environment's ${variable}`, source: 'environment' });
    }
  }
  return given;
}

function optionNamed(key: string, place: string): OptionName {
  const name = OPTION_NAMES.find((candidate) => candidate === key);
  if (name !== undefined) return name;
  const near = closestMatch(key, OPTION_NAMES);
  const hint = near === undefined ? '' : ` Did you mean ${near}?`;
  throw new UsageError(`${place}: there is no option ${shown(key)}.${hint}`);
}

function readConfigFile(path: string, required: boolean): { path: string; text: string } | null {
  try {
    // A FIFO without a writer would be waited for in the thread that serves.
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const facts = fstatSync(descriptor);
      if (!facts.isFile()) {
        throw new UsageError(`The configuration ${path} is not a regular file. Check --config.`);
      }
      if (facts.size > CONFIG_BYTES_MAX) {
        throw new UsageError(`${path} has ${facts.size} bytes; a configuration has at most 1 MiB.`);
      }
      return { path, text: readFileSync(descriptor, 'utf8') };
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    const code = codeOf(cause);
    if (!required && (code === 'ENOENT' || code === 'ENOTDIR')) return null;
    const denied = code === 'EACCES';
    throw new UsageError(
      `The configuration ${path} cannot be read (${code}). ` +
        (denied ? 'Run as its owner, or give another with --config.' : 'Check --config.'),
      { cause, exitCode: (denied ? EXIT_CODES.notPermitted : EXIT_CODES.invalidUse).code },
    );
  }
}

/** The value of a list's item; `null`, which no option takes, for anything that nests deeper. */
function scalarOf(item: unknown): unknown {
  return isScalar(item) ? item.value : null;
}

/** A value may be nested deeper than the stack of whoever writes it down. */
function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return 'a value nested too deeply';
  }
}

function shown(value: unknown): string {
  const text = jsonOf(value);
  return text.length > SHOWN_LENGTH_MAX ? `${text.slice(0, SHOWN_LENGTH_MAX)}…` : text;
}
