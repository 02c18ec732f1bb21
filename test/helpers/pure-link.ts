import type { SlabPool } from '../../src/base/slab.js';
import { Session } from '../../src/iscsi/session/session.js';
import type { LunField, ScsiCommand, ScsiPort } from '../../src/scsi/command.js';
import type { TargetNode } from '../../src/target/target.js';
import type { TargetConnection } from '../../src/target/target-connection.js';
import type { VirtualClock } from './virtual-clock.js';

const TARGET_NAME = 'iqn.2024-01.example:target';

/** A session and a target node in one process, with no socket and no real time between them. */
export class PureLink implements ScsiPort {
  readonly session: Session;
  readonly #pool: SlabPool;
  readonly #node: TargetNode;
  readonly #clock: VirtualClock;
  readonly #toSession: Buffer[] = [];
  #connection: TargetConnection | null = null;
  #pumping = false;

  static readonly targetName = TARGET_NAME;

  constructor(options: { pool: SlabPool; node: TargetNode; clock: VirtualClock }) {
    this.#pool = options.pool;
    this.#node = options.node;
    this.#clock = options.clock;
    this.session = new Session({
      identity: { sessionId: '0000000000000001', isid: Buffer.from('400001370000', 'hex') },
      pool: options.pool,
      config: {
        type: 'data',
        portals: [{ host: '127.0.0.1', port: 3260 }],
        queueDepthMax: 32,
        firstLogin: 'once',
        timers: {
          reconnectIntervalMs: 5000,
          loginTimeoutMs: 15_000,
          noopIntervalMs: 0,
          noopTimeoutMs: 5000,
          taskTimeoutMs: 3_600_000,
          abortTimeoutMs: 15_000,
          logicalUnitResetTimeoutMs: 30_000,
          logoutTimeoutMs: 3000,
        },
        login: {
          initiatorName: 'iqn.2024-01.example:initiator',
          targetName: TARGET_NAME,
          randomBytes: (length) => Buffer.alloc(length, 1),
          offer: {
            headerDigest: ['None'],
            dataDigest: ['None'],
            maxConnections: 1,
            initialR2T: false,
            immediateData: true,
            maxRecvDataSegmentLength: 262_144,
            maxBurstLength: 262_144,
            firstBurstLength: 65_536,
            maxOutstandingR2T: 1,
            defaultTime2Wait: 0,
            defaultTime2Retain: 20,
            errorRecoveryLevel: 0,
          },
        },
      },
    });
  }

  recall(lun: LunField): void {
    this.session.flow.recall(lun);
  }

  /** Logs in. */
  open(): void {
    this.session.start(this.#clock.nowMs());
    this.#pump();
    if (this.session.state !== 'loggedIn') throw new Error(`the session is ${this.session.state}`);
  }

  submit(command: ScsiCommand): void {
    this.session.submit(command, this.#clock.nowMs());
    this.#pump();
  }

  /** Delivers everything until nothing moves any more. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#step());
    this.#pumping = false;
  }

  #step(): boolean {
    const { effects, completed } = this.session;
    const effect = effects.shift();
    if (effect?.type === 'openLink') this.#openLink();
    if (effect?.type === 'closeLink' && this.#connection) this.#node.forget(this.#connection);
    if (effect !== undefined) return true;
    const done = completed.shift();
    if (done !== undefined) {
      this.session.flow.tell(done, this.#clock.nowMs());
      return true;
    }
    return this.#deliverToTarget() || this.#deliverToSession();
  }

  #openLink(): void {
    this.#connection = this.#node.connect(
      (bytes) => this.#toSession.push(Buffer.from(bytes)),
      () => undefined,
      { localAddress: '127.0.0.1', localPort: 3260 },
    );
    this.session.linkOpened(this.#clock.nowMs());
  }

  #deliverToTarget(): boolean {
    const queue = this.session.connection?.queue;
    if (queue === undefined || queue.isEmpty) return false;
    const at = queue.firstIndex * 3;
    const [slab, offset, length] = [queue.table[at]!, queue.table[at + 1]!, queue.table[at + 2]!];
    const bytes = Buffer.from(this.#pool.buffer(slab).subarray(offset, offset + length));
    queue.sent(length);
    this.#connection?.receive(bytes);
    return true;
  }

  #deliverToSession(): boolean {
    const bytes = this.#toSession.shift();
    if (bytes === undefined) return false;
    const slab = this.#pool.acquire();
    const buffer = this.#pool.buffer(slab);
    bytes.copy(buffer);
    this.session.bytesReceived(slab, buffer, 0, bytes.length, this.#clock.nowMs());
    this.#pool.release(slab);
    return true;
  }
}
