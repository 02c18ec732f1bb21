import type { ByteRange } from '../../src/bridge/block-device.js';
import { Budget } from '../../src/bridge/budget.js';
import { LogicalUnit } from '../../src/bridge/logical-unit.js';
import type { ScsiCommand, ScsiPort } from '../../src/scsi/command.js';
import type { DiskFacts } from '../../src/scsi/disk-facts.js';
import type { Attention } from '../../src/scsi/sense-table.js';
import { BlockClient, newPool } from './block-client.js';
import { Peer } from './nbd-peer.js';
import { VirtualClock } from './virtual-clock.js';

/** A command as the disk sent it: what a target would decode of it. */
export type Sent = {
  readonly command: ScsiCommand;
  readonly cdb: Buffer;
  readonly opcode: number;
  readonly data: Buffer;
};

/** Fixed format sense of SPC-4 §4.5.3, written by offset. */
export function fixedSense(key: number, asc: number, ascq = 0, deferred = false): Buffer {
  const sense = Buffer.alloc(18);
  sense[0] = deferred ? 0x71 : 0x70;
  sense[2] = key;
  sense[7] = 10;
  sense[12] = asc;
  sense[13] = ascq;
  return sense;
}

/** Keeps commands until the test answers them. */
export class ScriptedPort implements ScsiPort {
  readonly sent: Sent[] = [];
  /** Answers at once, inside `submit`, when it is set. */
  onSubmit: ((sent: Sent) => void) | null = null;

  submit(command: ScsiCommand): void {
    const data =
      command.direction === 'write' && command.dataOut !== null
        ? command.dataOut
            .toBuffer()
            .subarray(command.dataOutStart, command.dataOutStart + command.transferLength)
        : Buffer.alloc(0);
    const cdb = Buffer.from(command.cdb);
    const sent = { command, cdb, opcode: cdb[0]!, data };
    this.sent.push(sent);
    this.onSubmit?.(sent);
  }

  /** Everything has been sent: there is nothing to recall. */
  recall(): void {}

  /** The oldest command that has no answer yet. */
  take(): Sent {
    const sent = this.sent.shift();
    if (sent === undefined) throw new Error('no command was sent');
    return sent;
  }

  /** Without `sentBytes` the target has asked for all the data. */
  good(
    sent: Sent,
    options: { readonly residual?: number; readonly sentBytes?: number } = {},
  ): void {
    sent.command.residual = options.residual ?? 0;
    this.#done(sent, 0, null, options.sentBytes);
  }

  status(sent: Sent, status: number): void {
    this.#done(sent, status, null);
  }

  check(sent: Sent, sense: Buffer, options: { readonly sentBytes?: number } = {}): void {
    this.#done(sent, 2, sense, options.sentBytes);
  }

  lost(sent: Sent, outcome: 'lost' | 'aborted' = 'lost'): void {
    sent.command.outcome = outcome;
    sent.command.owner.scsiCommandDone(sent.command);
  }

  failed(sent: Sent, response: number): void {
    sent.command.outcome = 'failed';
    sent.command.response = response;
    sent.command.owner.scsiCommandDone(sent.command);
  }

  #done(sent: Sent, status: number, sense: Buffer | null, sentBytes?: number): void {
    const { command } = sent;
    const dataBytes = command.direction === 'write' ? command.transferLength : 0;
    command.sentBytes = sentBytes ?? dataBytes;
    command.outcome = 'answered';
    command.status = status;
    command.senseLength = sense?.copy(command.sense) ?? 0;
    command.owner.scsiCommandDone(command);
  }
}

export type Bench = ReturnType<typeof diskBench>;

/** One unit on a scripted port, with a client in front of its queue. */
export function diskBench(facts: DiskFacts, options: { readonly forcedReadOnly?: boolean } = {}) {
  const pool = newPool();
  const port = new ScriptedPort();
  const clock = new VirtualClock();
  const attentions: Attention[] = [];
  const hooks = {
    congested: 0,
    onAttention: (_attention: Attention): void => {},
    /** As told to those who write it down, with the answers that had been given by then. */
    losses: [] as boolean[],
    failed: [] as string[],
  };
  const unit = new LogicalUnit({
    lun: 1,
    facts,
    forcedReadOnly: options.forcedReadOnly ?? false,
    port,
    pool,
    clock,
    budget: new Budget({ requestsMax: 8192, bytesMax: 1 << 30, memory: pool }),
    onAttention: (_unit, attention) => {
      attentions.push(attention);
      hooks.onAttention(attention);
    },
    onCongested: () => {
      hooks.congested += 1;
    },
    onIoError: ({ reason }) => hooks.failed.push(reason),
    onLossChanged: (_unit, isUntold) => hooks.losses.push(isUntold),
  });
  const client = new BlockClient(unit.queue, pool);
  /** A client that speaks NBD, as the kernel does: without a handshake. */
  const newPeer = (partitions?: () => readonly ByteRange[]): Peer =>
    new Peer(pool, unit.budget, unit.queue, partitions);
  /** Puts `bytes` into a read's data as a target's Data-In would. */
  const dataIn = (sent: Sent, bytes: Buffer): void => {
    for (let at = 0; at < bytes.length; at += 1 << 19) {
      const slab = pool.acquire();
      const piece = bytes.subarray(at, at + (1 << 19));
      piece.copy(pool.buffer(slab));
      sent.command.dataIn.append(slab, 0, piece.length);
      pool.release(slab);
    }
  };
  return { pool, port, clock, unit, client, newPeer, attentions, hooks, dataIn };
}
