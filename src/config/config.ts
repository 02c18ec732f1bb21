import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
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
import {
  type Given,
  type GivenByName,
  type OptionSource,
  optionNamed,
  shown,
} from './given-options.js';

const CONFIG_PATH = '/etc/iscsi-nbd/config.yaml';

/** A configuration is a page of settings; anything larger is another file given by mistake. */
const CONFIG_BYTES_MAX = 1 << 20;

/** Options without a default, which are absent if they are not given. */
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

type ConfigInputs = {
  /** By flag without dashes, e.g. `removal-latency`; `undefined` where not given. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** `--config`; otherwise `/etc/iscsi-nbd/config.yaml` is read if it exists. */
  readonly configPath?: string;
};

type ConfigFile = { readonly path: string; readonly text: string };

/**
 * Joins flags, environment, configuration file and defaults, in this order of precedence. Throws
 * UsageError that names the flag, the variable, or the file's line and key. The parser of YAML is
 * loaded only if there is a file.
 */
export async function loadConfig(inputs: ConfigInputs): Promise<Config> {
  const file = configFileOf(inputs);
  if (file === null) return joinInputs(inputs, new Map());
  const { parseConfigText } = await import('./parse-config.js');
  return joinInputs(inputs, parseConfigText(file));
}

/** As `loadConfig`, at once: for code that must not be interrupted between question and answer. */
export function loadConfigWith(
  inputs: ConfigInputs,
  parse: (file: ConfigFile) => GivenByName,
): Config {
  const file = configFileOf(inputs);
  return joinInputs(inputs, file === null ? new Map() : parse(file));
}

function configFileOf({ configPath }: ConfigInputs): ConfigFile | null {
  return readConfigFile(configPath ?? CONFIG_PATH, configPath !== undefined);
}

function joinInputs({ flags, environment }: ConfigInputs, fromFile: GivenByName): Config {
  return joinConfig([givenByFlags(flags), givenByEnvironment(environment), fromFile]);
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

function joinConfig(layers: readonly GivenByName[]): Config {
  const values: Partial<Record<OptionName, unknown>> = {};
  const sources: Partial<Record<OptionName, OptionSource>> = {};
  for (const name of OPTION_NAMES) {
    const row = OPTION_ROWS[name];
    // Every layer is checked, even if a higher one wins: a wrong line never lies in wait.
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

function readConfigFile(path: string, required: boolean): ConfigFile | null {
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
