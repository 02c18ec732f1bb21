import type { SenseFacts } from './scsi/sense.js';
import type { KeyPair } from './text-keys.js';

/** What a fault hook gets about a command before it runs. */
export type CommandContext = {
  readonly targetName: string;
  readonly initiatorName: string;
  /** ISID as 12 hexadecimal digits. */
  readonly isid: string;
  readonly tsih: number;
  readonly connectionId: number;
  readonly portalGroupTag: number;
  readonly lun: number;
  readonly opcode: number;
  readonly cdb: Buffer;
  /** Of block commands; null for others. */
  readonly lba: number | null;
  readonly blockCount: number | null;
  readonly expectedBytes: number;
  /** How many commands of this operation code there have been, this one included. */
  readonly count: number;
};

/**
 * What happens to a command instead of its normal course:
 * - `ignore`: it stays in the task set, unanswered, until something ends it;
 * - `drop-connection`: the link goes at once and the command never ran;
 * - `drop-response`: it runs, and the answer is lost with the link still up, unless it reports a
 *   unit attention;
 * - `drop-connection-after`: it runs, and the link goes instead of the answer;
 * - `goodWithResidual`: it does nothing, asks for no data, and reports GOOD with this residual;
 * - `response`: an iSCSI response code (RFC 7143 §11.4.3 (Response)) other than 0;
 * - `delayMs`: it runs later; `outlivesLink` lets it run even when the link has gone meanwhile,
 *   as long as the session was not reinstated: a stale write. `startsLate`: it waits
 *   in the task set and meets the disk, and a unit attention, that exist at its start.
 *   `runsAtOnce`: it runs without delay, and its answer comes later;
 * - `undone`: GOOD with nothing done. `unasked`: a write whose data did not all come by itself ends
 *   without asking for the rest and without a residual (others run as usual); `residual`: the
 *   residual says that none of the expected bytes was moved.
 */
export type CommandFault =
  | undefined
  | 'ignore'
  | 'drop-connection'
  | 'drop-response'
  | 'drop-connection-after'
  | { readonly sense: SenseFacts }
  | { readonly status: number }
  | { readonly response: number }
  | { readonly goodWithResidual: number }
  | { readonly undone: 'unasked' | 'residual' }
  | {
      readonly delayMs: number;
      readonly outlivesLink?: boolean;
      readonly startsLate?: boolean;
      readonly runsAtOnce?: boolean;
    };

type DataInOptions = {
  /** GOOD status travels in the last Data-In (S bit); default true. */
  collapseStatus?: boolean;
  /** Smaller segments than the initiator asked for. */
  segmentBytesMax?: number;
  /** An empty Data-In before each real one. */
  emptySegments?: boolean;
};

/** Everything a test can make go wrong. Every field may change while sessions are up. */
export type Faults = {
  onCommand?: ((context: CommandContext) => CommandFault) | undefined;
  /** Every login is refused with this status. */
  loginStatus?: { readonly class: number; readonly detail: number } | undefined;
  /** Asked at every first login request; a status refuses this login only. */
  onLogin?:
    | ((login: {
        readonly initiatorName: string;
        readonly targetName: string;
        readonly isid: string;
        readonly tsih: number;
      }) => { readonly class: number; readonly detail: number } | 'ignore' | undefined)
    | undefined;
  /** The keys of a login response may be changed before they are sent. */
  onLoginKeys?: ((keys: KeyPair[], stage: number) => KeyPair[]) | undefined;
  /** Login and text responses are cut to this size, with the C bit. */
  textPieceBytes?: number | undefined;
  dataIn?: DataInOptions | undefined;
  /** An R2T asks for at most this. */
  r2tBytesMax?: number | undefined;
  /** NOP-Outs get no answer. */
  ignoreNops?: boolean | undefined;
  /** Answer to task management instead of doing it. */
  onTaskManagement?: ((functionCode: number) => number | 'ignore' | undefined) | undefined;
  /**
   * Task management is done, and answered, so much later; tasks sent after the request continue.
   */
  taskManagementDelayMs?: number | ((functionCode: number) => number) | undefined;
  /** A LOGICAL UNIT RESET is reported to the session that asked for it, too, as LIO does. */
  isResetToldToAsker?: boolean | undefined;
  /** Answer to a logout instead of doing it. */
  logoutResponse?: number | 'ignore' | undefined;
  /**
   * Sees each PDU before it is sent; the header may be changed in place (before digests).
   * `garbage-header-digest` and `garbage-data-digest` spoil a negotiated digest.
   */
  onSend?:
    | ((
        header: Buffer,
        data: Buffer,
      ) => undefined | 'drop' | 'drop-connection' | 'garbage-header-digest' | 'garbage-data-digest')
    | undefined;
};
