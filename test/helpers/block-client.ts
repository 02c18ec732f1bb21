import type { BlockErrno } from '../../src/base/errors.js';
import { SlabPool } from '../../src/base/slab.js';
import { SlabWriter } from '../../src/base/slab-writer.js';
import {
  type BlockDevice,
  type BlockExtentStatus,
  type BlockOperation,
  BlockRequest,
} from '../../src/bridge/block-device.js';
import type { DiskFacts } from '../../src/scsi/disk-facts.js';

export type Asked = {
  readonly operation: BlockOperation;
  readonly offset?: number;
  readonly length?: number;
  readonly data?: Buffer;
  readonly fua?: boolean;
  readonly noHole?: boolean;
  readonly fastZero?: boolean;
};

/** What became of one request; `answers` counts, because each has to be answered exactly once. */
export class Answer {
  answers = 0;
  errno: BlockErrno | null = null;
  reason = '';
  data: Buffer = Buffer.alloc(0);
  extents: BlockExtentStatus[] | null = null;
}

/** A client of a BlockDevice: asks, and remembers each answer. */
export class BlockClient {
  readonly pool: SlabPool;
  readonly device: BlockDevice;
  readonly #writer: SlabWriter;
  readonly #answers = new Map<BlockRequest, Answer>();
  isGone = false;
  /** Answers in the order in which they came. */
  readonly finished: Answer[] = [];

  constructor(device: BlockDevice, pool: SlabPool) {
    this.device = device;
    this.pool = pool;
    this.#writer = new SlabWriter(pool);
  }

  blockRequestDone(request: BlockRequest): void {
    const answer = this.#answers.get(request)!;
    answer.answers += 1;
    answer.errno = request.errno;
    answer.reason = request.reason;
    answer.data = request.data.toBuffer();
    answer.extents = request.extents;
    request.data.clear();
    this.finished.push(answer);
    if (this.isGone) this.device.abandonedRequestDone?.(request);
  }

  /** The client goes; what it asked for has no answer any more, but an end. */
  leave(): void {
    this.isGone = true;
    const underWay = [...this.#answers].filter(([, answer]) => answer.answers === 0);
    this.device.clientGone(
      this,
      underWay.map(([request]) => request),
    );
  }

  ask(asked: Asked): Answer {
    const request = new BlockRequest(this, this.pool);
    request.operation = asked.operation;
    request.offsetBytes = asked.offset ?? 0;
    request.lengthBytes = asked.length ?? asked.data?.length ?? 0;
    request.fua = asked.fua ?? false;
    request.noHole = asked.noHole ?? false;
    request.fastZero = asked.fastZero ?? false;
    for (let at = 0; asked.data !== undefined && at < asked.data.length; at += 1 << 19) {
      this.#writer.write(asked.data.subarray(at, at + (1 << 19)), request.data);
    }
    const answer = new Answer();
    this.#answers.set(request, answer);
    this.device.submit(request);
    return answer;
  }

  close(): void {
    this.#writer.close();
  }
}

export function newPool(): SlabPool {
  return new SlabPool({ slabsMax: 256 });
}

type FactsInput = Partial<Omit<DiskFacts, 'limits' | 'thin'>> & {
  readonly limits?: Partial<DiskFacts['limits']>;
  readonly thin?: Partial<DiskFacts['thin']>;
};

/** A thin disk of 1 GiB with 512-byte blocks that limits nothing; `input` changes that. */
export function diskFacts(input: FactsInput = {}): DiskFacts {
  return {
    vendor: 'EXAMPLE',
    product: 'DISK',
    revision: '1',
    serial: 'S1',
    identifiers: ['naa.3000000000000001'],
    deviceType: 0,
    blockSizeBytes: 512,
    blockCount: 1 << 21,
    physicalBlockExponent: 3,
    readOnly: false,
    writeCacheEnabled: true,
    dpoFua: true,
    commandQueuing: true,
    rotational: null,
    notes: [],
    ...input,
    thin: { unmap: true, writeSame16Unmap: true, readsZero: true, ...input.thin },
    limits: {
      maxTransferBlocks: 0xffff_ffff,
      optimalTransferBlocks: 0,
      optimalGranularity: 0,
      unmapLbaMax: 0xffff_ffff,
      unmapDescriptorsMax: 1,
      unmapGranularity: 1,
      unmapAlignment: 0,
      writeSameBlocksMax: 0xffff_ffff,
      ...input.limits,
    },
  };
}
