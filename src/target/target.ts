import type { TargetDisk } from './disk.js';
import type { Faults } from './faults.js';
import type { NegotiationSettings } from './negotiation.js';
import { NodeState } from './node-state.js';
import type { TargetSession, UnitAttention } from './session.js';
import type { Peer, TargetInput, TargetNodeOptions, TargetOptions } from './settings.js';
import type { TargetStats } from './stats.js';
import { TargetConnection, type TargetLinkEnd } from './target-connection.js';

const LUNS_CHANGED: UnitAttention = { asc: 0x3f, ascq: 0x0e };
const COMMANDS_CLEARED: UnitAttention = { asc: 0x2f, ascq: 0x00 };

/**
 * An iSCSI target in memory: names with their LUNs, the sessions to them, and every fault a test
 * can ask for. It knows no socket and no clock; `startTargetServer` gives it both.
 */
export class TargetNode {
  /** Shared by everything below; the socket server completes it. */
  readonly state: NodeState;
  readonly #connections = new Set<TargetConnection>();

  constructor(options: TargetNodeOptions) {
    this.state = new NodeState(options);
  }

  get stats(): TargetStats {
    return this.state.stats;
  }

  /** Mutable: set a hook and it counts from the next PDU. */
  get faults(): Faults {
    return this.state.faults;
  }

  /** Mutable: counts from the next login. */
  get negotiation(): NegotiationSettings {
    return this.state.negotiation;
  }

  get targets(): ReadonlyMap<string, TargetOptions> {
    return this.state.targets;
  }

  get sessions(): readonly TargetSession[] {
    return [...this.state.sessions];
  }

  /** Open connections, logged in or not. */
  get connections(): readonly TargetConnection[] {
    return [...this.#connections];
  }

  /**
   * A new link. `send` is given bytes in order, which are not changed afterwards; `closed` says
   * that the target ends the link.
   */
  connect(
    send: (bytes: Uint8Array) => void,
    closed: (end: TargetLinkEnd) => void,
    peer: Peer,
  ): TargetConnection {
    const connection = new TargetConnection({
      node: this.state,
      send,
      closed: (end) => {
        this.#connections.delete(connection);
        closed(end);
      },
      peer,
    });
    this.#connections.add(connection);
    return connection;
  }

  /** The link of `connection` is gone. */
  forget(connection: TargetConnection): void {
    this.#connections.delete(connection);
    connection.linkClosed();
  }

  addTarget(input: TargetInput): TargetOptions {
    return this.state.addTarget(input);
  }

  removeTarget(name: string): void {
    for (const session of this.sessions) {
      if (session.target?.name === name) this.state.endSession(session);
    }
    this.state.targets.delete(name);
  }

  /** Gives or takes (`null`) a LUN; sessions hear of it by unit attention 3Fh/0Eh. */
  setLun(targetName: string, lun: number, disk: TargetDisk | null): void {
    const target = this.state.targets.get(targetName);
    if (target === undefined) return;
    const before = [...target.luns];
    if (disk === null) target.luns.delete(lun);
    else target.luns.set(lun, disk);
    for (const session of this.#sessionsOf(targetName)) {
      for (const [other, its] of before) {
        if (other !== lun) session.raise(other, LUNS_CHANGED, its);
      }
    }
  }

  /** Queues a unit attention on a LUN for every session of the target. */
  raiseAttention(targetName: string, lun: number, attention: UnitAttention): void {
    const disk = this.state.targets.get(targetName)?.luns.get(lun);
    if (disk === undefined) return;
    for (const session of this.#sessionsOf(targetName)) session.raise(lun, attention, disk);
    this.state.raiseForAbsent(targetName, lun, attention);
  }

  /**
   * Another initiator has cleared the task set of a LUN, and TAS is 0: the tasks are gone without a
   * word, and the next command of each session meets unit attention 2Fh/00h (SAM-5 §5.6).
   */
  clearTaskSet(targetName: string, lun: number): void {
    for (const session of this.#sessionsOf(targetName)) {
      this.state.stats.tasksKilled += session.endTasks((task) => task.lun === lun);
    }
    this.raiseAttention(targetName, lun, COMMANDS_CLEARED);
  }

  /**
   * A new window size, now. A window that opens is reported by NOP-In: RFC 7143 §11.4.11 (MaxCmdSN
   * - Maximum CmdSN from This Initiator).
   */
  setCommandWindow(size: number): void {
    this.state.commandWindow = size;
    for (const session of this.state.sessions) {
      const wasClosed = session.window.isClosed;
      session.window.resize(size);
      session.window.update(session.tasks.size);
      if (!wasClosed || session.window.isClosed) continue;
      for (const connection of this.#connections) {
        if (connection.session === session) connection.sendNop(false);
      }
    }
  }

  /** Every link goes at once, as when the network is cut. */
  dropConnections(): void {
    for (const connection of this.connections) connection.drop();
  }

  /**
   * The target goes down and comes up again: links, sessions and tasks are gone, unflushed writes
   * too when the power failed, and sessions begin with unit attention 29h (if so configured).
   */
  restart(options: { readonly powerLoss?: boolean } = {}): void {
    this.dropConnections();
    for (const session of this.sessions) this.state.endSession(session);
    if (options.powerLoss) {
      for (const target of this.state.targets.values()) {
        for (const disk of target.luns.values()) disk.powerLoss();
      }
    }
    this.state.markRestarted();
  }

  #sessionsOf(targetName: string): TargetSession[] {
    return this.sessions.filter((session) => session.target?.name === targetName);
  }
}
