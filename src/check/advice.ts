import type { SessionOptions } from '../config/contract.js';
import { formatHostPort } from '../config/target-url.js';
import type { CheckReport, LunCheck } from './check-report.js';

type Advice = CheckReport['advice'][number];
type Found = Omit<CheckReport, 'advice'>;

/** Linux's name of the interface to itself. */
const LOOPBACK = 'lo';
/** From here on the usual number of commands under way does not fill the way to the target. */
const ROUND_TRIP_LONG_MS = 5;
const QUEUE_DEPTH_FOR_LONG_WAYS = 512;

/** Options that fit what was found, the most important first. */
export function adviceFor(found: Found, options: SessionOptions): Advice[] {
  return [
    ...found.luns.flatMap((lun) => ofIdentity(lun, options)),
    ...ofPaths(found, options),
    ...ofSafety(found),
    ...ofSpeed(found, options),
    ...ofHost(found),
    ...ofDisks(found, options),
  ];
}

function ofIdentity({ lun, disk }: LunCheck, options: SessionOptions): Advice[] {
  if (disk === null) return [];
  const { strength } = disk.identity;
  if (strength === 'none' && options.allowUnidentified !== true) {
    const why =
      `LUN ${lun} has no name and no serial number: after an outage it cannot be identified as ` +
      'the same disk, and its held writes fail. Give it a serial number at the target, or set ' +
      'this if no other disk can ever get this LUN.';
    return [{ option: '--allow-unidentified', why }];
  }
  if (strength === 'serial') {
    const why =
      `LUN ${lun} is known by its serial number only, which two disks can share. Give it a name ` +
      '(NAA or EUI-64) at the target.';
    return [{ option: null, why }];
  }
  return [];
}

function ofPaths({ target, luns }: Found, options: SessionOptions): Advice[] {
  const known = [target.portal, target.address, ...options.portals.map(formatHostPort)];
  const others = (target.portals ?? []).filter((portal) => !known.includes(portal));
  const notOurs = luns.find(({ disk }) =>
    disk?.portGroups.groups.some(
      ({ isOurs, state }) => isOurs === true && !['optimized', 'unknown'].includes(state),
    ),
  );
  const advice: Advice[] = [];
  if (notOurs !== undefined) {
    const why =
      `LUN ${notOurs.lun} is better reached over another port group: use its portal in the ` +
      'URL.';
    advice.push({ option: null, why });
  }
  if (others.length > 0) {
    const why =
      'the target listens there too: the session tries these portals if this one is down.';
    advice.push({ option: `--portals ${others.join(',')}`, why });
  }
  return advice;
}

function ofSafety({ login, host }: Found): Advice[] {
  if (host.interface === LOOPBACK) return [];
  const advice: Advice[] = [];
  const { digestsAccepted: accepted, headerDigest, dataDigest, authentication } = login;
  if (
    accepted?.data === true &&
    accepted.header &&
    dataDigest === 'None' &&
    headerDigest === 'None'
  ) {
    const why =
      'the target can sum what it sends and receives; the checksum of TCP misses some of what ' +
      'network cards and switches damage.';
    const option = '--header-digest CRC32C,None --data-digest CRC32C,None';
    advice.push({ option, why });
  }
  if (authentication === 'none') {
    const why =
      'a host that reaches the portal and knows the name of this initiator can write to the ' +
      'disks. Set up CHAP at the target first.';
    advice.push({ option: '--chap-user NAME --chap-secret-file FILE', why });
  }
  return advice;
}

function ofSpeed({ roundTrip }: Found, options: SessionOptions): Advice[] {
  const isLong = roundTrip.medianMs >= ROUND_TRIP_LONG_MS;
  if (!isLong || options.queueDepthMax >= QUEUE_DEPTH_FOR_LONG_WAYS) return [];
  const why = `a round trip takes ${roundTrip.medianMs} ms, so more commands have to be under way.`;
  return [{ option: `--queue-depth-max ${QUEUE_DEPTH_FOR_LONG_WAYS}`, why }];
}

function ofHost({ host }: Found): Advice[] {
  if (host.canAttach) return [];
  return [{ option: null, why: 'use `serve` on this host: it needs neither root nor the driver.' }];
}

function ofDisks({ luns }: Found, options: SessionOptions): Advice[] {
  const disks = luns.flatMap(({ disk }) => (disk === null ? [] : [disk]));
  const isReadOnly = disks.length > 0 && disks.every(({ readOnly }) => readOnly);
  if (!isReadOnly || options.readOnly) return [];
  const why = 'the target protects its disks from writes; other sessions may use them then, too.';
  return [{ option: '--read-only', why }];
}
