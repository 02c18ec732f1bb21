import { isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { UsageError } from '../base/errors.js';
import { OPTION_ROWS, type OptionName } from './config-options.js';
import { type Given, type GivenByName, optionNamed } from './given-options.js';

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

/** The value of a list's item; `null`, which no option takes, for anything that nests deeper. */
function scalarOf(item: unknown): unknown {
  return isScalar(item) ? item.value : null;
}
