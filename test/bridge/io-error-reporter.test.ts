import { describe, expect, it } from 'vitest';
import { SlabPool } from '../../src/base/slab.js';
import { BlockRequest } from '../../src/bridge/block-device.js';
import { type IoError, IoErrorReporter } from '../../src/bridge/io-error-reporter.js';

const pool = new SlabPool({ slabsMax: 1 });

function failedRequest(errno: BlockRequest['errno']): BlockRequest {
  const request = new BlockRequest({ isGone: false, blockRequestDone: () => {} }, pool);
  request.operation = 'write';
  request.offsetBytes = 4096;
  request.lengthBytes = 512;
  request.errno = errno;
  request.reason = 'the medium is worn';
  return request;
}

describe('IoErrorReporter', () => {
  it('a failed request is reported with operation, position and reason', () => {
    const told: IoError[] = [];
    new IoErrorReporter((error) => told.push(error)).failed(failedRequest('EIO'));
    expect(told).toEqual([
      {
        operation: 'write',
        offsetBytes: 4096,
        lengthBytes: 512,
        errno: 'EIO',
        reason: 'the medium is worn',
      },
    ]);
  });

  it('failed requests are reported at each doubling of their number, so a dead disk causes no flood', () => {
    const told: IoError[] = [];
    const reporter = new IoErrorReporter((error) => told.push(error));
    for (let count = 0; count < 100; count += 1) reporter.failed(failedRequest('EIO'));
    expect(told).toHaveLength(7); // 1, 2, 4, 8, 16, 32, 64
    expect(reporter.count).toBe(100);
  });

  it("a failed request is not reported if the client's request was wrong or on trial", () => {
    const told: IoError[] = [];
    const reporter = new IoErrorReporter((error) => told.push(error));
    for (const errno of [null, 'EINVAL', 'ENOTSUP'] as const) reporter.failed(failedRequest(errno));
    expect(told).toEqual([]);
  });
});
