import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import type { CliIo } from '../../src/cli/context.js';
import { drawPaths } from '../../src/cli/path-rates.js';
import type { PathView } from '../../src/supervisor/path-report.js';
import type { StatisticsView } from '../../src/supervisor/session-report.js';
import { SAMPLE_PATH } from './sample-path.js';

const path = (number: number, more: Partial<PathView> = {}): PathView => ({
  ...SAMPLE_PATH,
  UniqueSessionId: String(number).padStart(16, '0'),
  portal: `192.0.2.${number}:3260`,
  group: number,
  ...more,
});

/** What a terminal shows of it, by lines. */
function drawn(paths: PathView[], before: PathView[], linesMax: number): string[] {
  const stdout = new PassThrough();
  const view = (atMs: number, of: PathView[]) =>
    ({ UniqueSessionId: 'a', atMs, paths: of }) as unknown as StatisticsView;
  drawPaths({ stdout } as unknown as CliIo, {
    now: [view(2000, paths)],
    before: [view(1000, before)],
    linesMax,
  });
  return String(stdout.read() ?? '')
    .split('\n')
    .slice(0, -1);
}

describe('the paths in top', () => {
  it('each path has a line with the bytes of a second', () => {
    const now = [path(1, { BytesReceived: 3 << 20 }), path(2)];
    const lines = drawn(now, [path(1, { BytesReceived: 1 << 20 }), path(2)], Infinity);
    expect(lines.length).toBe(4);
    expect(lines[2]).toMatch(/^0{8} +0 +optimized +2\.0 MiB +0 B .* group 1 +192\.0\.2\.1:3260$/);
  });

  it('paths in trouble are shown first where not all fit, and the others are counted', () => {
    const all = [1, 2, 3, 4, 5].map((number) => path(number));
    all[3] = path(4, { state: 'down', pathState: 'down' });
    const lines = drawn(all, [], 5);
    expect(lines.length).toBe(5);
    expect(lines[2]).toContain('down');
    expect(lines.at(-1)).toBe('and 3 more paths: iscsi-nbd paths');
  });

  it('nothing is drawn without paths, or without room', () => {
    expect(drawn([], [], Infinity)).toEqual([]);
    expect(drawn([path(1)], [], 3)).toEqual([]);
  });
});
