import { describe, expect, it } from 'vitest';
import { pathText, pathTroubles, usablePathsText } from '../../src/cli/path-text.js';
import { isPathUsable, type PathView } from '../../src/supervisor/path-report.js';

const path = (state: PathView['state'], access: PathView['access']): PathView => ({
  lun: 0,
  UniqueSessionId: '0'.repeat(16),
  portal: '192.0.2.1:3260',
  TargetiSCSIName: 'iqn.2001-04.com.example:disk',
  state,
  pathState: access === 'unknown' ? state : access,
  reason: 'target port group 1',
  access,
  group: 1,
  preferred: false,
  suspect: false,
  commandsInFlight: 0,
  failures: 0,
  BytesSent: 0,
  BytesReceived: 0,
});

describe('a path in the views of a session', () => {
  it.each([
    ['optimized', true],
    ['nonOptimized', true],
    ['blockDependent', true],
    ['unknown', true],
    ['standby', false],
    ['unavailable', false],
    ['offline', false],
    ['transitioning', false],
  ] as const)('one whose disk is found counts by its access: %s', (access, isUsable) => {
    const view = path('ready', access);
    expect(isPathUsable(view)).toBe(isUsable);
    expect(usablePathsText([view, path('ready', 'optimized')])).toBe(`${isUsable ? 2 : 1}/2`);
    expect(pathTroubles([view]).join().includes(': target port group 1')).toBe(!isUsable);
    expect(pathText(view).endsWith('  target port group 1')).toBe(!isUsable);
  });

  it.each(['down', 'checking'] as const)('one that is %s does not count', (state) => {
    expect(isPathUsable(path(state, 'optimized'))).toBe(false);
  });
});
