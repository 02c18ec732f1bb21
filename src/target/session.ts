import { serialAdd, serialDistance, serialLess } from '../base/serial32.js';
import type { Pdu } from './codec.js';
import type { TargetDisk } from './disk.js';
import type { CommandFault } from './faults.js';
import type { Parameters } from './negotiation.js';
import type { ScsiPlan } from './scsi/scsi-block.js';
import type { TargetOptions } from './settings.js';

/** What the rest of the target needs of a connection. */
export interface ConnectionPort {
  readonly connectionId: number;
  readonly isOpen: boolean;
  readonly parameters: Parameters;
  /**
   * Sends one PDU. `advances`: it takes the next StatSN; `shows`: it carries it without taking it;
   * `none`: the field stays reserved.
   */
  send(header: Buffer, data: Buffer | null, statSN: 'advances' | 'shows' | 'none'): void;
  /** The link goes now, answers and all. */
  drop(): void;
  /** The link ends after what was sent has left. */
  finish(): void;
}

/** A Ready To Transfer that waits for its data. */
export type OutstandingR2T = {
  readonly tag: number;
  readonly end: number;
  nextOffset: number;
  dataSN: number;
};

export type SenseCode = { readonly key: number; readonly asc: number; readonly ascq: number };

/** One SCSI command from arrival to answer. */
export type TargetTask = {
  readonly initiatorTaskTag: number;
  readonly cmdSN: number;
  readonly lunField: Buffer;
  readonly lun: number;
  readonly cdb: Buffer;
  readonly connection: ConnectionPort;
  readonly reads: boolean;
  readonly writes: boolean;
  readonly expectedBytes: number;
  fault: CommandFault;
  plan: ScsiPlan | null;
  /** Set when the command can only end in CHECK CONDITION. */
  failure: SenseCode | null;
  dataOut: Buffer;
  /** Bytes asked of the initiator so far, unsolicited ones included. */
  solicitedBytes: number;
  unsolicitedOpen: boolean;
  unsolicitedBytes: number;
  unsolicitedDataSN: number;
  r2tSN: number;
  r2ts: OutstandingR2T[];
  ended: boolean;
  cancelDelay: (() => void) | null;
  /** Plans a command that starts late anew, with what is there then. */
  planLate: (() => void) | null;
};

export type UnitAttention = { readonly asc: number; readonly ascq: number };

type SeenUnit = {
  disk: TargetDisk;
  sizeBytes: number;
  readOnly: boolean;
  readonly pending: UnitAttention[];
};

/** Attentions a LUN queues for one session at most; a real device keeps few, too. */
const ATTENTIONS_MAX = 16;
/** Commands out of order that wait for a gap to be filled; the window bounds it as well. */
const HELD_MAX = 4096;

/** RFC 7143 §4.2.2.1 (Command Numbering and Acknowledging), the target's part of it. */
class TargetCommandWindow {
  expCmdSN: number;
  maxCmdSN: number;
  #size: number;
  readonly #held = new Map<number, { connection: ConnectionPort; pdu: Pdu } | null>();

  constructor(firstCmdSN: number, size: number) {
    this.expCmdSN = firstCmdSN;
    this.#size = size;
    this.maxCmdSN = serialAdd(firstCmdSN, size - 1);
  }

  /** The window follows what is finished; it never shrinks. */
  update(tasksInFlight: number): void {
    const most = serialAdd(this.expCmdSN, this.#size - 1 - Math.min(tasksInFlight, this.#size));
    if (serialLess(this.maxCmdSN, most)) this.maxCmdSN = most;
  }

  resize(size: number): void {
    this.#size = size;
  }

  /** Whether no further command may be sent. */
  get isClosed(): boolean {
    return serialLess(this.maxCmdSN, this.expCmdSN);
  }

  accepts(cmdSN: number): boolean {
    return !serialLess(cmdSN, this.expCmdSN) && !serialLess(this.maxCmdSN, cmdSN);
  }

  /** Keeps a PDU (or the hole an aborted one leaves) until its turn. */
  hold(cmdSN: number, what: { connection: ConnectionPort; pdu: Pdu } | null): void {
    if (this.#held.size < HELD_MAX && !this.#held.has(cmdSN)) this.#held.set(cmdSN, what);
  }

  isHeld(cmdSN: number): boolean {
    return this.#held.has(cmdSN);
  }

  /** The next PDU in order, or undefined when there is none; holes are passed over. */
  take(): { connection: ConnectionPort; pdu: Pdu } | undefined {
    while (this.#held.has(this.expCmdSN)) {
      const what = this.#held.get(this.expCmdSN);
      this.#held.delete(this.expCmdSN);
      this.expCmdSN = serialAdd(this.expCmdSN, 1);
      if (what) return what;
    }
    return undefined;
  }

  distance(cmdSN: number): number {
    return serialDistance(this.expCmdSN, cmdSN);
  }
}

/** One session: its identity, its connections, its command window and its task set. */
export class TargetSession {
  readonly initiatorName: string;
  readonly isid: Buffer;
  readonly tsih: number;
  /** Null for a discovery session. */
  readonly target: TargetOptions | null;
  readonly portalGroupTag: number;
  readonly parameters: Parameters;
  readonly connections = new Map<number, ConnectionPort>();
  readonly tasks = new Map<number, TargetTask>();
  readonly window: TargetCommandWindow;
  ended = false;
  readonly #units = new Map<number, SeenUnit>();

  constructor(facts: {
    readonly initiatorName: string;
    readonly isid: Buffer;
    readonly tsih: number;
    readonly target: TargetOptions | null;
    readonly portalGroupTag: number;
    readonly parameters: Parameters;
    readonly firstCmdSN: number;
    readonly windowSize: number;
  }) {
    this.initiatorName = facts.initiatorName;
    this.isid = Buffer.from(facts.isid);
    this.tsih = facts.tsih;
    this.target = facts.target;
    this.portalGroupTag = facts.portalGroupTag;
    this.parameters = facts.parameters;
    this.window = new TargetCommandWindow(facts.firstCmdSN, facts.windowSize);
  }

  /** Ends a task without an answer. Returns whether it was still alive. */
  endTask(task: TargetTask): boolean {
    if (this.tasks.get(task.initiatorTaskTag) === task) {
      this.tasks.delete(task.initiatorTaskTag);
      this.window.update(this.tasks.size);
    }
    if (task.ended) return false;
    task.ended = true;
    task.cancelDelay?.();
    task.cancelDelay = null;
    return true;
  }

  /** Ends every task `which` picks; returns how many. */
  endTasks(which: (task: TargetTask) => boolean = () => true): number {
    let ended = 0;
    for (const task of [...this.tasks.values()]) {
      if (which(task) && this.endTask(task)) ended += 1;
    }
    return ended;
  }

  raise(lun: number, attention: UnitAttention, disk: TargetDisk): void {
    const pending = this.#unit(lun, disk).pending;
    if (pending.length < ATTENTIONS_MAX) pending.push(attention);
  }

  /** Takes the oldest attention of a LUN, after noticing what changed on the disk. */
  takeAttention(lun: number, disk: TargetDisk): UnitAttention | null {
    const unit = this.#unit(lun, disk);
    if (!disk.announcesChanges) return unit.pending.shift() ?? null;
    if (unit.disk !== disk) {
      unit.disk = disk;
      unit.pending.push({ asc: 0x3f, ascq: 0x03 }); // INQUIRY DATA HAS CHANGED
    }
    if (unit.sizeBytes !== disk.sizeBytes) {
      unit.sizeBytes = disk.sizeBytes;
      unit.pending.push({ asc: 0x2a, ascq: 0x09 }); // CAPACITY DATA HAS CHANGED
    }
    if (unit.readOnly !== disk.readOnly) {
      unit.readOnly = disk.readOnly;
      unit.pending.push({ asc: 0x2a, ascq: 0x01 }); // MODE PARAMETERS CHANGED
    }
    return unit.pending.shift() ?? null;
  }

  /** Attentions of each LUN that were not reported yet. */
  get pendingAttentions(): ReadonlyMap<number, readonly UnitAttention[]> {
    const pending = [...this.#units].filter(([, unit]) => unit.pending.length > 0);
    return new Map(pending.map(([lun, unit]) => [lun, [...unit.pending]]));
  }

  /** Notes the disk as it is now, so that later changes raise an attention. */
  see(lun: number, disk: TargetDisk): void {
    this.#unit(lun, disk);
  }

  #unit(lun: number, disk: TargetDisk): SeenUnit {
    let unit = this.#units.get(lun);
    if (unit === undefined) {
      unit = { disk, sizeBytes: disk.sizeBytes, readOnly: disk.readOnly, pending: [] };
      this.#units.set(lun, unit);
    }
    return unit;
  }
}
