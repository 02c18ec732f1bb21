import { getSystemErrorMap } from 'node:util';
import { UsageError } from '../base/errors.js';
import { describeLoginStatus, formatLoginStatus } from '../iscsi/login/login-status.js';
import { senseOfCodes } from '../scsi/sense.js';
import type { Attention, Verdict } from '../scsi/sense-table.js';
import { senseToWords, verdictOfSense } from '../scsi/verdict.js';
import { networkWords } from './error-report.js';
import { EXIT_CODES, exitNameOfCode } from './exit-codes.js';
import { explainAccessState } from './explain-access.js';
import type { Explanation } from './explanation.js';

const SENSE_ACTIONS = {
  success: 'Nothing: the command did its work.',
  retry: 'Nothing: the command is sent again at once.',
  retryAfterDelay: 'Nothing: the command is sent again after a pause.',
  attention: 'Nothing: the disk is read again, then the command is sent again.',
  away:
    'Requests wait until the disk is back, up to --removal-latency, and then fail with EIO. If ' +
    'that takes long, check the LUN at the target.',
} as const;

const CACHE_MAY_BE_LOST =
  'Nothing: acknowledged writes that were not flushed are written again first (the event ' +
  'writesReplayed says how many), then the command. Only with --retain-writes never or --shared ' +
  'the next flush of each client fails with EIO instead: then check the data.';
const MAY_BE_ANOTHER_DISK =
  'Check that the LUN still has the same disk. If it has, the command is sent again; if not, the ' +
  'disk is removed and its requests fail with EIO.';

/** Attentions after which an operator has something to check or to do. */
const ATTENTION_STEPS: Readonly<Partial<Record<Attention, string>>> = {
  powerOn: CACHE_MAY_BE_LOST,
  reset: CACHE_MAY_BE_LOST,
  mediumChanged: MAY_BE_ANOTHER_DISK,
  inquiryChanged: MAY_BE_ANOTHER_DISK,
  lunsChanged: MAY_BE_ANOTHER_DISK,
  accessStateChanged:
    'Nothing: the states of the target port groups are read again, and commands go over the best ' +
    'paths (`iscsi-nbd paths`). The command is sent again.',
  thresholdReached: 'Add space at the target. The command is sent again.',
};

const ANOTHER_PATH =
  'Nothing, if the disk has another path: the command goes over that one (`iscsi-nbd paths`). ' +
  'Without one ';
const WAITS = 'requests wait up to --removal-latency, and then fail with EIO. ';

/** As `ATTENTION_STEPS`, where the disk cannot be used over this port. */
const PORT_STEPS: Readonly<Partial<Record<Attention, string>>> = {
  accessTransition:
    `${ANOTHER_PATH}${WAITS}A disk with several paths waits first as long as the target says ` +
    'that a transition takes.',
  portStandby: `${ANOTHER_PATH}${WAITS}Log in to a portal of the other controller, too.`,
  portUnavailable: `${ANOTHER_PATH}${WAITS}Check the controller of this port at the target.`,
  lunGone: `${ANOTHER_PATH}${WAITS}Check that the target shows the LUN to this initiator.`,
};

/** Errnos a block client meets, where the system's own words are too short to help. */
const BLOCK_ERRNOS: Readonly<Record<string, readonly [explanation: string, nextStep: string]>> = {
  EIO: [
    'the device failed, or the outage lasted longer than --removal-latency',
    "Look at the ioError event, which has the device's own words.",
  ],
  ENOSPC: ['the target could not allocate space for a write', 'Add space at the target.'],
  EPERM: ['the disk is write protected or reserved', 'Check the access rights at the target.'],
  EINVAL: ['the request lies outside the disk', 'Check whether the disk was made smaller.'],
  ENOTSUP: ['the device does not know the command', 'Do without it, e.g. without discard.'],
  ESHUTDOWN: ['the export is being closed', 'Start it again.'],
};

/**
 * Says what a code means: an exit status (`24`), a login status of four hexadecimal digits
 * (`0201`), sense key/ASC/ASCQ (`06/29/00`), an errno name (`EIO`), or an asymmetric access state
 * (`standby`). Throws UsageError.
 */
export function explain(code: string): Explanation {
  if (/^\d{1,3}$/.test(code)) return explainExitCode(Number(code));
  const status = /^(?:0x)?([0-9a-f]{2})([0-9a-f]{2})$/i.exec(code);
  if (status) return explainLoginStatus(fromHex(status[1]), fromHex(status[2]));
  const sense = /^([0-9a-f]{1,2})h?\/([0-9a-f]{1,2})h?(?:\/([0-9a-f]{1,2})h?)?$/i.exec(code);
  if (sense) return explainSense(fromHex(sense[1]), fromHex(sense[2]), fromHex(sense[3] ?? '0'));
  if (/^E[A-Z0-9]+$/.test(code)) return explainErrno(code);
  const access = explainAccessState(code);
  if (access !== null) return access;
  throw new UsageError(
    `'${code}' has none of the forms explain knows: an exit status (24), a login status ` +
      '(0201), sense key/ASC/ASCQ (06/29/00), an errno name (EIO), an access state (standby).',
  );
}

function explainExitCode(code: number): Explanation {
  const name = exitNameOfCode(code);
  if (name === undefined) {
    throw new UsageError(`No command of iscsi-nbd exits with ${code}; --run passes on any status.`);
  }
  return {
    kind: 'exitCode',
    code: String(code),
    name,
    layer: 'the iscsi-nbd command',
    explanation: EXIT_CODES[name].words,
    nextStep: 'Read the message on stderr: it names what failed and where.',
    reference: 'iscsi-nbd(8), EXIT STATUS',
  };
}

function explainLoginStatus(statusClass: number, statusDetail: number): Explanation {
  const { name, explanation, nextStep } = describeLoginStatus(statusClass, statusDetail);
  return {
    kind: 'loginStatus',
    code: formatLoginStatus(statusClass, statusDetail),
    name,
    layer: 'iSCSI login',
    explanation,
    nextStep: `${sentence(nextStep)}.`,
    reference: 'RFC 7143 §11.13.5 (Status-Class and Status-Detail)',
  };
}

function explainSense(senseKey: number, asc: number, ascq: number): Explanation {
  if (senseKey > 0x0f) throw new UsageError('A sense key is one hexadecimal digit, 0 to F.');
  const sense = senseOfCodes({ senseKey, asc, ascq });
  const verdict = verdictOfSense(sense);
  const code = [senseKey, asc, ascq].map((part) => part.toString(16).padStart(2, '0')).join('/');
  return {
    kind: 'sense',
    code,
    name: senseToWords(sense),
    layer: 'SCSI: the device itself',
    explanation: verdict.words,
    nextStep: senseStep(verdict),
    reference: 'SPC-4 §4.5 (Sense data)',
  };
}

function senseStep({ action, attention, errno }: Verdict): string {
  if (action === 'fail') return `The client gets ${errno}: see \`iscsi-nbd explain ${errno}\`.`;
  if (action === 'away' && attention !== null) return PORT_STEPS[attention] ?? SENSE_ACTIONS.away;
  if (action !== 'attention' || attention === null) return SENSE_ACTIONS[action];
  return ATTENTION_STEPS[attention] ?? SENSE_ACTIONS.attention;
}

function explainErrno(name: string): Explanation {
  const found = [...getSystemErrorMap()].find(([, [known]]) => known === name);
  const words = found?.[1][1];
  if (words === undefined) throw new UsageError(`The system has no errno ${name}.`);
  const code = { kind: 'errno', code: name, name: words } as const;
  const block = BLOCK_ERRNOS[name];
  if (block !== undefined) {
    const [explanation, nextStep] = block;
    const layer = 'the block device or NBD export';
    return { ...code, layer, explanation, nextStep, reference: 'NBD protocol, "Error values"' };
  }
  const network = networkWords(name);
  return {
    ...code,
    layer: network === undefined ? 'the operating system' : 'the network to the target',
    explanation: network ?? words,
    nextStep:
      network === undefined
        ? 'Read the message it came with: it names what failed and where.'
        : 'Check the address and port, routes, the firewall, and that the target is running.',
    reference: 'errno(3)',
  };
}

function fromHex(digits: string | undefined): number {
  return Number.parseInt(digits ?? '', 16);
}

function sentence(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}
