import { describe, expect, it } from 'vitest';
import { pathText, pathTroubles, usablePathsText } from '../../src/cli/path-text.js';
import { isPathUsable, type PathView } from '../../src/supervisor/path-report.js';
import { SAMPLE_PATH } from './sample-path.js';

const path = (state: PathView['state'], access: PathView['access']): PathView => ({
  ...SAMPLE_PATH,
  state,
  pathState: access === 'unknown' ? state : access,
  reason: 'target port group 1',
  access,
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
