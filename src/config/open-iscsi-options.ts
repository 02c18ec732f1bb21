import { UsageError } from '../base/errors.js';
import { OPTION_ROWS, type OptionName } from './config-options.js';

/**
 * The settings of open-iscsi that have an option here, with the meaning that iscsid gives their
 * values (README and etc/iscsid.conf of open-iscsi; usr/initiator.c for values it replaces).
 */

const SHOWN_LENGTH_MAX = 60;
const NEVER = 'never';
const INTERVAL = 'node.conn[0].timeo.noop_out_interval';
const TIMEOUT = 'node.conn[0].timeo.noop_out_timeout';

type Setting = {
  readonly option: OptionName;
  /** What iscsid uses in place of 0, which is no valid value of this setting. */
  readonly insteadOfZero?: number;
  /** A number below 0: requests wait for ever. */
  readonly isEndless?: true;
};

const SETTINGS: Readonly<Record<string, Setting>> = {
  'node.session.timeo.replacement_timeout': { option: 'removalLatencySeconds', isEndless: true },
  'node.conn[0].timeo.login_timeout': { option: 'loginTimeoutSeconds', insteadOfZero: 30 },
  [INTERVAL]: { option: 'noopIntervalSeconds' },
  [TIMEOUT]: { option: 'noopTimeoutSeconds', insteadOfZero: 5 },
  'node.session.err_timeo.abort_timeout': { option: 'abortTimeoutSeconds' },
  'node.session.err_timeo.lu_reset_timeout': { option: 'logicalUnitResetTimeoutSeconds' },
  'node.session.cmds_max': { option: 'queueDepthMax', insteadOfZero: 128 },
  'node.session.nr_sessions': { option: 'sessionsPerPortal', insteadOfZero: 1 },
  'node.session.iscsi.InitialR2T': { option: 'initialR2T' },
  'node.session.iscsi.ImmediateData': { option: 'immediateData' },
  'node.session.iscsi.FirstBurstLength': { option: 'firstBurstLength', insteadOfZero: 262_144 },
  'node.session.iscsi.MaxBurstLength': { option: 'maxBurstLength', insteadOfZero: 16_776_192 },
  'node.conn[0].iscsi.MaxRecvDataSegmentLength': {
    option: 'maxRecvDataSegmentLength',
    insteadOfZero: 262_144,
  },
  'node.conn[0].iscsi.HeaderDigest': { option: 'headerDigest' },
  'node.conn[0].iscsi.DataDigest': { option: 'dataDigest' },
};

/** The settings of open-iscsi that `import-open-iscsi` takes for an option. */
export function openIscsiNamesOf(option: OptionName): readonly string[] {
  return Object.keys(SETTINGS).filter((name) => SETTINGS[name]?.option === option);
}

export type OpenIscsiOptions = {
  /** By option, as text; every value is one that the option takes. */
  readonly options: Partial<Record<OptionName, string>>;
  /** Values that were replaced: half a sentence each, which begins with the setting. */
  readonly warnings: readonly string[];
  /** Names of settings that have no option here. */
  readonly unknown: readonly string[];
};

/**
 * What settings of open-iscsi, by their names, mean as options. A number beyond what an option
 * takes becomes the nearest one that it takes, with a warning. Throws UsageError for a value that
 * is none of its kind.
 */
export function openIscsiOptions(settings: ReadonlyMap<string, string>): OpenIscsiOptions {
  const options: Partial<Record<OptionName, string>> = {};
  const warnings: string[] = [];
  const unknown: string[] = [];
  for (const [name, value] of settings) {
    const setting = Object.hasOwn(SETTINGS, name) ? SETTINGS[name] : undefined;
    if (setting === undefined) unknown.push(name);
    // Neither a ping nor a time for its answer: this is how pings are switched off.
    else if (name === TIMEOUT && Number(value) === 0 && isZero(settings.get(INTERVAL))) continue;
    else options[setting.option] = translated({ name, value, setting }, warnings);
  }
  const { firstBurstLength, maxBurstLength } = options;
  if (maxBurstLength !== undefined && Number(firstBurstLength ?? 0) > Number(maxBurstLength)) {
    options.firstBurstLength = maxBurstLength;
    warnings.push(
      `FirstBurstLength ${firstBurstLength} is above MaxBurstLength: ${maxBurstLength} is used.`,
    );
  }
  return { options, warnings, unknown };
}

function translated(
  given: { readonly name: string; readonly value: string; readonly setting: Setting },
  warnings: string[],
): string {
  const { name, value, setting } = given;
  const row = OPTION_ROWS[setting.option];
  const isNumber = 'range' in row && /^[+-]?\d{1,15}$/.test(value);
  const used = isNumber ? nearest(Number(value), row.range, setting) : value;
  if (!row.schema.safeParse(used).success) {
    const shown = JSON.stringify(value.slice(0, SHOWN_LENGTH_MAX));
    throw new UsageError(`its ${name} must be ${row.expects}, not ${shown}`);
  }
  if (isNumber && used !== NEVER && Number(used) !== Number(value)) {
    warnings.push(`${name} = ${value} is not possible here: ${used} is used.`);
  }
  return used;
}

function nearest(
  value: number,
  range: { readonly min: number; readonly max: number },
  setting: Setting,
): string {
  if (setting.isEndless && value < 0) return NEVER;
  const wished = value === 0 ? (setting.insteadOfZero ?? 0) : value;
  return String(Math.min(Math.max(wished, range.min), range.max));
}

function isZero(value: string | undefined): boolean {
  return value !== undefined && Number(value) === 0;
}
