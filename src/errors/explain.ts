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
  success: 'No action is needed: the command succeeded.',
  retry: 'No action is needed: iscsi-nbd retries the command immediately.',
  retryAfterDelay: 'No action is needed: iscsi-nbd retries the command after a pause.',
  attention:
    'No action is needed: iscsi-nbd reads the properties of the disk again and then retries the ' +
    'command.',
  away:
    'Requests wait until the disk responds again. After --removal-latency they fail with EIO. If ' +
    'the disk does not return, check the LUN at the target.',
} as const;

const CACHE_MAY_BE_LOST =
  'No action is needed: the acknowledged writes that were not flushed are written again (the ' +
  'event writesReplayed reports their number), and then the command is retried. With ' +
  '--retain-writes never or --shared, the next flush of each client fails with EIO instead; in ' +
  'that case check the data.';
const MAY_BE_ANOTHER_DISK =
  'Check that the LUN is still the same disk. If it is, iscsi-nbd retries the command; if not, ' +
  'iscsi-nbd removes the disk and its requests fail with EIO.';

/** Attentions after which an operator has something to check or to do. */
const ATTENTION_STEPS: Readonly<Partial<Record<Attention, string>>> = {
  powerOn: CACHE_MAY_BE_LOST,
  reset: CACHE_MAY_BE_LOST,
  mediumChanged: MAY_BE_ANOTHER_DISK,
  inquiryChanged: MAY_BE_ANOTHER_DISK,
  lunsChanged: MAY_BE_ANOTHER_DISK,
  accessStateChanged:
    'No action is needed: iscsi-nbd reads the states of the target port groups again, uses the ' +
    'best paths (`iscsi-nbd paths`), and retries the command.',
  thresholdReached: 'Add space at the target. iscsi-nbd retries the command.',
};

const ANOTHER_PATH =
  'If the disk has another path (`iscsi-nbd paths`), no action is needed: the command is retried ' +
  'over it. Otherwise ';
const WAITS = 'requests wait, and after --removal-latency they fail with EIO. ';

/** As `ATTENTION_STEPS`, where the disk cannot be used over this port. */
const PORT_STEPS: Readonly<Partial<Record<Attention, string>>> = {
  accessTransition:
    `${ANOTHER_PATH}${WAITS}Requests of a disk with several paths first wait for the transition ` +
    'time that the target reports.',
  portStandby: `${ANOTHER_PATH}${WAITS}Log in to a portal of the other controller as well.`,
  portUnavailable: `${ANOTHER_PATH}${WAITS}Check the controller of this port at the target.`,
  lunGone: `${ANOTHER_PATH}${WAITS}Check that the target maps the LUN to this initiator.`,
};

/** Errnos a block client meets, where the system's own words are too short to help. */
const BLOCK_ERRNOS: Readonly<Record<string, readonly [explanation: string, nextStep: string]>> = {
  EIO: [
    'the device reported an error, or the outage lasted longer than --removal-latency',
    'Read the ioError event, which has the error that the device reported.',
  ],
  ENOSPC: ['the target could not allocate space for a write', 'Add space at the target.'],
  EPERM: [
    'the disk is write protected, or another initiator has reserved it',
    'Check the access rights at the target.',
  ],
  EINVAL: ['the request is outside the disk', 'Check whether the disk has shrunk.'],
  ENOTSUP: [
    'the device does not support the command',
    'Disable the feature that sends it, e.g. mount without discard.',
  ],
  ESHUTDOWN: ['the process closes the export', 'Start the export again.'],
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
    `'${code}' is not a code that explain supports: an exit status (24), a login status ` +
      '(0201), sense key/ASC/ASCQ (06/29/00), an errno name (EIO), an access state (standby).',
  );
}

function explainExitCode(code: number): Explanation {
  const name = exitNameOfCode(code);
  if (name === undefined) {
    throw new UsageError(
      `No command of iscsi-nbd exits with ${code}; --run returns the status of its command.`,
    );
  }
  return {
    kind: 'exitCode',
    code: String(code),
    name,
    layer: 'the iscsi-nbd command',
    explanation: EXIT_CODES[name].words,
    nextStep: 'Read the message on stderr: it names the operation that failed and its place.',
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
        ? 'Read the message that has this code: it names the operation that failed and its place.'
        : 'Check the address, the port, the routes, the firewall, and whether the target runs.',
    reference: 'errno(3)',
  };
}

function fromHex(digits: string | undefined): number {
  return Number.parseInt(digits ?? '', 16);
}

function sentence(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1);
}
