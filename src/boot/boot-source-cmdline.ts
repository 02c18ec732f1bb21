import { closestMatch } from '../base/closest-match.js';
import { UsageError } from '../base/errors.js';
import { flagOf, OPTION_NAMES, type OptionName } from '../config/config-options.js';
import { type OpenIscsiOptions, openIscsiOptions } from '../config/open-iscsi-options.js';
import { Secret } from '../config/secrets.js';
import { formatTargetUrl, parseTargetUrl } from '../config/target-url.js';
import { formatPortal, readPortal } from '../iscsi/login/portal.js';
import { iscsiNameFault } from '../iscsi/login/target-name.js';
import type { BootChap, BootSource } from './boot-source.js';
import { type NetrootPlace, parseNetroot } from './boot-source-netroot.js';

const PREFIX = 'iscsi_nbd.';
/** For the scripts of the initramfs: whether a table of the firmware counts. */
const IBFT_SWITCH = 'iscsi_nbd.ibft';
/** What the URL says itself, or what is the same for every boot session. */
const NOT_HERE: readonly OptionName[] = ['sessionType', 'luns', 'portals'];
const SEEN_BY_ALL =
  'A CHAP secret is on the kernel command line, which every user of the system can read. Name a ' +
  'file of the initramfs with iscsi_nbd.chap-secret-file=PATH.';

type Parameter = { readonly name: string; readonly value: string | null };
type Options = Partial<Record<OptionName, string>>;

/**
 * The boot LUN that a kernel command line names: `iscsi_nbd=URL[,option=value…]`, or dracut's
 * `netroot=iscsi:…` with `rd.iscsi.*` (dracut.cmdline(7)). `iscsi_nbd.<option>=<value>` sets an
 * option of the session for each of them. `firmware`: it asks for the firmware's table; null: it
 * says nothing of iSCSI. Throws UsageError; a secret is never in its message.
 */
export function parseBootCommandLine(text: string): BootSource | 'firmware' | null {
  const parameters = splitParameters(text);
  const urls = valuesOf(parameters, 'iscsi_nbd');
  if (urls.length > 1) throw new UsageError('iscsi_nbd= is on the kernel command line twice.');
  const [url] = urls;
  if (url !== undefined) return fromUrl(url, ownOptions(parameters));
  const netroots = valuesOf(parameters, 'netroot').filter((value) => /^iscsi(?::|$)/.test(value));
  const asksFirmware = isOn(parameters, 'rd.iscsi.firmware');
  if (netroots.every((value) => value === 'iscsi' || value === 'iscsi:') && asksFirmware) {
    return 'firmware';
  }
  const named = valuesOf(parameters, 'rd.iscsi.target.name').length > 0;
  return netroots.length === 0 && !named ? null : fromDracut(parameters, netroots);
}

/**
 * Parameters as the kernel takes them apart: blanks divide, double quotes hold blanks together
 * (Documentation/admin-guide/kernel-parameters). After `--` they are the init process's.
 */
function splitParameters(text: string): Parameter[] {
  const parameters: Parameter[] = [];
  for (const [word] of text.matchAll(/(?:"[^"]*"?|[^\s"])+/g)) {
    const plain = word.replaceAll('"', '');
    if (plain === '--') break;
    const equals = plain.indexOf('=');
    parameters.push(
      equals < 0
        ? { name: plain, value: null }
        : { name: plain.slice(0, equals), value: plain.slice(equals + 1) },
    );
  }
  return parameters;
}

function valuesOf(parameters: readonly Parameter[], name: string): string[] {
  return parameters.filter((one) => one.name === name).map((one) => one.value ?? '');
}

/** dracut's booleans: the name alone is yes. */
function isOn(parameters: readonly Parameter[], name: string): boolean {
  const last = parameters.findLast((one) => one.name === name);
  return last !== undefined && !['0', 'no', 'off'].includes(last.value ?? '1');
}

function fromUrl(value: string, more: Options): BootSource {
  // A target's name has no comma, what stands before it may.
  const path = value.search(/\/(?:iqn|eui|naa)\./);
  const comma = path < 0 ? -1 : value.indexOf(',', path);
  const url = parseTargetUrl(comma < 0 ? value : value.slice(0, comma));
  if (url.lun === null) {
    throw new UsageError(
      `iscsi_nbd=${formatTargetUrl(url)} names no LUN: one is started from, so add /<lun>.`,
    );
  }
  const options: Options = { ...more };
  for (const item of comma < 0 ? [] : value.slice(comma + 1).split(',')) {
    const equals = item.indexOf('=');
    const name = equals < 0 ? item : item.slice(0, equals);
    setOption(options, 'iscsi_nbd=', name, equals < 0 ? 'yes' : item.slice(equals + 1));
  }
  const { user, password } = url;
  if (user !== undefined && password === undefined) options.chapUser ??= user;
  const hasPassword = user !== undefined && password !== undefined;
  return {
    origin: 'iscsi_nbd= of the kernel command line',
    portal: { host: url.host, port: url.port },
    targetName: url.targetName,
    lun: url.lun,
    ...(hasPassword ? { chap: { user, secret: new Secret(password) } } : {}),
    options,
    warnings: hasPassword ? [SEEN_BY_ALL] : [],
  };
}

/** Options of `iscsi_nbd.<option>=<value>`. */
function ownOptions(parameters: readonly Parameter[]): Options {
  const options: Options = {};
  for (const { name, value } of parameters) {
    if (!name.startsWith(PREFIX) || name === IBFT_SWITCH) continue;
    setOption(options, PREFIX, name.slice(PREFIX.length), value ?? 'yes');
  }
  return options;
}

function setOption(options: Options, place: string, name: string, value: string): void {
  const option = OPTION_NAMES.find((known) => known === name || flagOf(known) === name);
  if (option === undefined || NOT_HERE.includes(option)) {
    const near = closestMatch(name, OPTION_NAMES.map(flagOf));
    const hint = option !== undefined || near === undefined ? '' : ` Did you mean ${near}?`;
    throw new UsageError(
      `${place} of the kernel command line has no option '${name.slice(0, 60)}'.${hint}`,
    );
  }
  if (options[option] !== undefined) {
    throw new UsageError(`The kernel command line sets the option ${flagOf(option)} twice.`);
  }
  options[option] = value;
}

function fromDracut(parameters: readonly Parameter[], netroots: readonly string[]): BootSource {
  const last = (name: string) => valuesOf(parameters, `rd.iscsi.${name}`).at(-1) || undefined;
  const places = netroots
    .filter((value) => value !== 'iscsi' && value !== 'iscsi:')
    .map((value) => parseNetroot(value));
  const [first] = places;
  const targetName = first?.targetName ?? last('target.name') ?? '';
  const fault = iscsiNameFault(targetName);
  if (fault !== null) throw wrong('rd.iscsi.target.name', fault);
  const host = first?.host ?? hostOf(last('target.ip'));
  const port = first?.port ?? numberOf('rd.iscsi.target.port', last('target.port'), 65_535) ?? 3260;
  if (port === 0) throw wrong('rd.iscsi.target.port', 'it is 0');
  numberOf('rd.iscsi.target.group', last('target.group'), 65_535);
  const initiatorName = last('initiator');
  const initiatorFault = initiatorName === undefined ? null : iscsiNameFault(initiatorName);
  if (initiatorFault !== null) throw wrong('rd.iscsi.initiator', initiatorFault);
  const chap = first?.chap ?? dracutChap(last);
  const { options, warnings } = dracutOptions(parameters);
  const portals = places.slice(1).map((place) => otherPortal(place, { targetName, first }));
  if (portals.length > 0) options.portals = portals.join(',');
  if (first?.isBound === true) {
    warnings.push('The interface that netroot=iscsi: names is passed over: the routes decide.');
  }
  if (chap !== undefined) warnings.push(SEEN_BY_ALL);
  const parameter = first === undefined ? 'rd.iscsi.target.name=' : 'netroot=iscsi:';
  return {
    origin: `${parameter} of the kernel command line`,
    portal: { host, port },
    targetName,
    lun: first?.lun ?? 0,
    ...(initiatorName === undefined ? {} : { initiatorName }),
    ...(chap === undefined ? {} : { chap }),
    options,
    warnings,
  };
}

/** More `netroot=iscsi:` are other ways to the same LUN. */
function otherPortal(
  place: NetrootPlace,
  known: { readonly targetName: string; readonly first: NetrootPlace | undefined },
): string {
  if (place.targetName !== known.targetName || place.lun !== known.first?.lun) {
    throw wrong('netroot=iscsi:', 'it is there twice, for different LUNs; one is started from');
  }
  if (place.host === undefined) throw wrong('netroot=iscsi:', 'the second one names no server');
  return formatPortal({ host: place.host, port: place.port ?? 3260 });
}

function dracutChap(last: (name: string) => string | undefined): BootChap | undefined {
  const user = last('username');
  const secret = last('password');
  const targetUser = last('in.username');
  const targetSecret = last('in.password');
  if ((user === undefined) !== (secret === undefined)) {
    throw wrong('rd.iscsi.username', 'it and rd.iscsi.password come together');
  }
  if (targetUser !== undefined && targetSecret === undefined) {
    throw wrong('rd.iscsi.in.username', 'it needs rd.iscsi.in.password');
  }
  if (user === undefined || secret === undefined) {
    if (targetSecret === undefined) return undefined;
    throw wrong('rd.iscsi.in.password', 'a target proves itself only to a rd.iscsi.username');
  }
  const chap = { user, secret: new Secret(secret) };
  if (targetSecret === undefined) return chap;
  const target = { secret: new Secret(targetSecret) };
  return { ...chap, target: targetUser === undefined ? target : { ...target, user: targetUser } };
}

/** Settings of open-iscsi in `rd.iscsi.param=name=value`, and options of our own. */
function dracutOptions(parameters: readonly Parameter[]): {
  options: Options;
  warnings: string[];
} {
  const options = ownOptions(parameters);
  const settings = new Map<string, string>();
  for (const setting of valuesOf(parameters, 'rd.iscsi.param')) {
    const equals = setting.indexOf('=');
    if (equals < 1) throw wrong('rd.iscsi.param', "the form is 'name=value'");
    const name = setting.slice(0, equals).slice(0, 100);
    // The first one counts, as with options of our own.
    if (!settings.has(name)) settings.set(name, setting.slice(equals + 1));
  }
  const meant = meaningOf(settings);
  const warnings = [
    ...meant.unknown.map((name) => `rd.iscsi.param=${name}= means nothing here.`),
    ...meant.warnings.map((warning) => `rd.iscsi.param=${warning}`),
  ];
  return { options: { ...meant.options, ...options }, warnings };
}

function meaningOf(settings: ReadonlyMap<string, string>): OpenIscsiOptions {
  try {
    return openIscsiOptions(settings);
  } catch (error) {
    throw error instanceof UsageError ? wrong('rd.iscsi.param', error.message) : error;
  }
}

function numberOf(name: string, text: string | undefined, max: number): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d{1,8}$/.test(text) ? Number(text) : Number.NaN;
  if (value <= max) return value;
  throw wrong(name, `'${text.slice(0, 20)}' is not a number from 0 to ${max}`);
}

function hostOf(text: string | undefined): string {
  if (text === undefined) {
    throw wrong('netroot=iscsi:', 'there is no server; add rd.iscsi.target.ip');
  }
  const place = readPortal(text);
  if ('fault' in place) throw wrong('rd.iscsi.target.ip', place.fault);
  return place.host;
}

function wrong(place: string, why: string): UsageError {
  return new UsageError(`The kernel command line is wrong at ${place}: ${why}.`);
}
