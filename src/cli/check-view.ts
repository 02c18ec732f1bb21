import type { CheckReport, DiskCheck, LunCheck, ReadSpeed } from '../check/check-report.js';
import type { CliIo } from './context.js';
import { humanBytes, printable, printLine } from './print.js';
import { columnsOf } from './table-width.js';

/** `check` for people: a heading for each thing, short lines below it, advice at the end. */

const INDENT = '  ';
const LABEL_WIDTH = 16;
/** A line longer than this is hard to read. */
const COLUMNS_MAX = 100;

const STRENGTH = {
  worldwide: 'a worldwide name',
  chosen: 'a name of the vendor or administrator, not from a registry',
  serial: 'only a serial number',
  none: 'none: after an outage it cannot be distinguished from another disk',
} as const;

const CACHE = {
  volatile: 'volatile: a flush writes it to the medium',
  none: 'none, or one that survives a power failure',
  notTold: 'not told; it counts as none',
  notRead: 'could not be read; it counts as volatile',
} as const;

const STATE_WORDS = {
  optimized: 'optimized',
  nonOptimized: 'non-optimized',
  standby: 'standby',
  unavailable: 'unavailable',
  blockDependent: 'depends on the block',
  offline: 'offline',
  transitioning: 'changing',
  unknown: 'unknown',
} as const;

/** Keys that say most about how data goes; all of them are in `--json`. */
const KEYS_SHOWN = [
  'InitialR2T',
  'ImmediateData',
  'FirstBurstLength',
  'MaxBurstLength',
  'MaxRecvDataSegmentLength',
  'MaxOutstandingR2T',
  'ErrorRecoveryLevel',
  'DefaultTime2Wait',
  'DefaultTime2Retain',
];

export function printCheck(io: CliIo, report: CheckReport): void {
  const page = new Page(io);
  target(page, report);
  login(page, report);
  quirks(page, report);
  for (const lun of report.luns) lunPart(page, lun);
  hostPart(page, report);
  advice(page, report);
}

/** Lines that fit the terminal; what is too long goes on below its own beginning. */
class Page {
  readonly #io: CliIo;
  readonly #columns: number;
  #isFirst = true;

  constructor(io: CliIo) {
    this.#io = io;
    this.#columns = Math.min(columnsOf(io) ?? COLUMNS_MAX, COLUMNS_MAX);
  }

  heading(text: string): void {
    if (!this.#isFirst) printLine(this.#io, '');
    this.#isFirst = false;
    printLine(this.#io, printable(text));
  }

  /** A label with its value; an empty value is left out. */
  field(label: string, value: string): void {
    if (value !== '') this.#wrapped(`${INDENT}${label.padEnd(LABEL_WIDTH)}`, value);
  }

  item(text: string): void {
    this.#wrapped(`${INDENT}- `, text);
  }

  #wrapped(start: string, text: string): void {
    const room = Math.max(20, this.#columns - start.length);
    let begin = start;
    let line = '';
    for (const word of printable(text).split(' ')) {
      if (line !== '' && line.length + 1 + word.length > room) {
        printLine(this.#io, `${begin}${line}`);
        begin = ' '.repeat(start.length);
        line = word;
      } else {
        line = line === '' ? word : `${line} ${word}`;
      }
    }
    printLine(this.#io, `${begin}${line}`);
  }
}

function target(page: Page, { target: found, roundTrip, luns }: CheckReport): void {
  page.heading(`Target ${found.name}`);
  page.field('LUNs', countText(luns));
  page.field('portal', `${found.portal}, ${groupText(found.portalGroupTag)}`);
  const others = (found.portals ?? []).filter((one) => one !== found.portal);
  page.field('portals listed', others.length === 0 ? '' : (found.portals ?? []).join(', '));
  page.field('alias', found.alias ?? '');
  const { minMs, medianMs, maxMs } = roundTrip;
  page.field('round trip', `${medianMs} ms (${minMs} to ${maxMs} ms in ${roundTrip.count} pings)`);
}

function countText(luns: readonly LunCheck[]): string {
  const disks = luns.filter(({ disk }) => disk !== null).length;
  const bad = luns.filter(({ error }) => error !== null).map(({ lun }) => lun);
  const usable = `${disks} ${disks === 1 ? 'disk' : 'disks'} that can be used`;
  return bad.length === 0 ? usable : `${usable}; not usable: LUN ${bad.join(', ')}`;
}

function groupText(tag: number | null): string {
  return tag === null ? 'no portal group is reported' : `portal group ${tag}`;
}

function login(page: Page, { login: found }: CheckReport): void {
  page.heading('Login');
  const { authentication } = found;
  const how = authentication === 'none' ? 'none: the target asks for none' : authentication;
  page.field('authentication', how);
  const { headerDigest, dataDigest, digestsAccepted: accepted } = found;
  const now = `header ${headerDigest}, data ${dataDigest}`;
  page.field('digests', `${now}; ${acceptedText(accepted)}`);
  const inForce = new Map(found.keys.map((row) => [row.key, row.inForce]));
  const shown = KEYS_SHOWN.filter((key) => inForce.has(key));
  page.field('keys in force', shown.map((key) => `${key}=${inForce.get(key)}`).join(' '));
}

function acceptedText(accepted: CheckReport['login']['digestsAccepted']): string {
  if (accepted === null) return 'a login with CRC32C did not work';
  const { header, data } = accepted;
  if (header && data) return 'the target agrees to CRC32C';
  if (!header && !data) return 'the target does not agree to CRC32C';
  return `the target agrees to CRC32C of the ${header ? 'header' : 'data'} only`;
}

function quirks(page: Page, { quirks: found }: CheckReport): void {
  page.heading(found.length === 0 ? 'Quirks: none was seen' : 'Quirks');
  for (const { section, what, nextStep } of found) {
    page.item(`${what} (RFC 7143 §${section}). ${nextStep}`);
  }
}

function lunPart(page: Page, lun: LunCheck): void {
  const { disk, error } = lun;
  const make = [lun.vendor, lun.product, disk?.revision ?? ''].filter((part) => part !== '');
  const size = disk === null ? '' : `  ${humanBytes(disk.sizeBytes)}`;
  page.heading(`LUN ${lun.lun}  ${lun.type}${size}  ${make.join(' ')}`.trimEnd());
  if (error !== null) page.field('not usable', error);
  else if (disk === null) page.field('not a disk', 'it is passed over');
  if (disk !== null) diskPart(page, disk);
}

function diskPart(page: Page, disk: DiskCheck): void {
  const { identity } = disk;
  page.field('identity', STRENGTH[identity.strength]);
  page.field('', identity.name ?? '');
  const physical = disk.physicalBlockSizeBytes;
  const isPlain = physical === disk.blockSizeBytes;
  const blocks = `${disk.blockSizeBytes} bytes`;
  page.field('blocks', isPlain ? blocks : `${blocks}, ${physical} on the medium`);
  page.field('access', disk.readOnly ? 'read-only' : 'read and write');
  page.field('write cache', `${CACHE[disk.writeCache]}; FUA ${disk.fua ? 'yes' : 'no'}`);
  page.field('discard', discardText(disk.discard));
  page.field('queueing', disk.commandQueuing ? '' : 'one command at a time');
  const { transferBytesMax } = disk;
  page.field('transfers', transferBytesMax === null ? '' : `up to ${humanBytes(transferBytesMax)}`);
  portGroups(page, disk.portGroups);
  for (const speed of disk.speed) {
    page.field(`reads, ${humanBytes(speed.sizeBytes).replace('.0', '')}`, speedText(speed));
  }
  page.field('reads', disk.speedError ?? '');
  for (const note of disk.notes) page.field('note', note);
}

function discardText(discard: DiskCheck['discard']): string {
  if (!discard.unmap && !discard.writeSame) return 'no';
  const how = [discard.unmap ? 'UNMAP' : '', discard.writeSame ? 'WRITE SAME' : ''];
  const { granularityBytes, unmapBytesMax: max } = discard;
  const most = max === null || !discard.unmap ? '' : `, up to ${humanBytes(max)} a command`;
  const zero = discard.readsZero ? ', reads zeros afterwards' : '';
  const ways = how.filter((one) => one !== '').join(' and ');
  return `${ways}, in units of ${humanBytes(granularityBytes)}${most}${zero}`;
}

function portGroups(page: Page, { changedBy, groups, error }: DiskCheck['portGroups']): void {
  if (changedBy === 'none') return;
  const by = changedBy === 'both' ? 'the target or an initiator' : `the ${changedBy}`;
  page.field('ALUA', `the state of a port group is changed by ${by}`);
  page.field('', error === null ? '' : `the groups are not known: ${error}`);
  for (const group of groups) {
    const marks = [group.preferred ? 'preferred' : '', group.isOurs === true ? 'this portal' : ''];
    const told = marks.filter((mark) => mark !== '').join(', ');
    const state = STATE_WORDS[group.state];
    page.field('', `group ${group.group}: ${state}${told === '' ? '' : ` (${told})`}`);
  }
}

function speedText({ inFlight, readsPerSecond, bytesPerSecond, medianMs }: ReadSpeed): string {
  const each = medianMs >= 10 ? medianMs.toFixed(1) : medianMs;
  const rate = `${humanBytes(bytesPerSecond)}/s, ${readsPerSecond} a second`;
  return `${rate}, ${each} ms each, ${inFlight} at once`;
}

function hostPart(page: Page, { host }: CheckReport): void {
  page.heading('This host');
  page.field('/dev/nbdX', host.canAttach ? 'can be made (attach, daemon)' : (host.whyNot ?? 'no'));
  const { interface: name, mtuBytes, localAddress } = host;
  const mtu = mtuBytes === null ? '' : `, MTU ${mtuBytes}`;
  page.field('network', name === null ? (localAddress ?? '') : `${name} (${localAddress})${mtu}`);
}

function advice(page: Page, { advice: found }: CheckReport): void {
  page.heading(found.length === 0 ? 'Advice: no option is needed' : 'Advice');
  for (const { option, why } of found)
    page.item(option === null ? capital(why) : `${option}: ${why}`);
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
