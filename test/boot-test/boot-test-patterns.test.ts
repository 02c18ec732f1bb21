import { describe, expect, it } from 'vitest';
import { UsageError } from '../../src/base/errors.js';
import {
  BootPatterns,
  compilePattern,
  EXPECT_DEFAULT,
  FAIL_DEFAULT,
} from '../../src/boot-test/boot-test-patterns.js';

const judgeBy = (expected: string, failed = FAIL_DEFAULT) =>
  new BootPatterns({
    expect: compilePattern('--expect', expected),
    fail: compilePattern('--fail-regex', failed),
  });

describe('the boot test patterns', () => {
  it.each([
    // What the programs print, as found in their sources.
    ['Linux', '[    4.930248] Kernel panic - not syncing: VFS: Unable to mount root fs'],
    ['SeaBIOS', 'Boot failed: not a bootable disk'],
    ['SeaBIOS without any disk', 'No bootable device.'],
    ['OVMF', 'BdsDxe: No bootable option or device was found.'],
    ["OVMF's shell", 'Shell> '],
    ['a boot record of MS-DOS', 'Missing operating system'],
    ['GRUB', 'grub rescue> '],
    ['GRUB without a menu', 'grub> '],
    ['initramfs-tools', '(initramfs) '],
    ['dracut', 'Entering emergency mode. Exit the shell to continue.'],
    ['systemd', 'You are in emergency mode. After logging in, type "journalctl -xb"'],
  ])('the default patterns fail where %s gives up', (_, line) => {
    expect(judgeBy(EXPECT_DEFAULT).look(['fine so far', line])).toEqual({ kind: 'failed', line });
  });

  it.each([
    'Welcome to GRUB!',
    'error: no suitable video mode found.',
    '[    0.000000] Kernel command line: panic=-1 quiet',
    '[  OK  ] Stopped Emergency Shell.',
    'Shell> echo from startup.nsh',
  ])('the default patterns do not fail on a line of a good boot: %s', (line) => {
    expect(judgeBy(EXPECT_DEFAULT).look([line])).toBeNull();
  });

  it('the first matching line decides; within a line --expect takes precedence', () => {
    const patterns = judgeBy('up', 'down');
    expect(patterns.look(['x', 'down', 'up'])).toEqual({ kind: 'failed', line: 'down' });
    expect(patterns.look(['x', 'up', 'down'])).toEqual({ kind: 'expected', line: 'up' });
    expect(patterns.look(['down and up'])).toEqual({ kind: 'expected', line: 'down and up' });
    expect(patterns.look([])).toBeNull();
  });

  it('a pattern that backtracks without end is stopped, and is a usage error', () => {
    const patterns = judgeBy('^(a+)+$');
    expect(patterns.look(['aaaa!'])).toBeNull();
    expect(() => patterns.look([`${'a'.repeat(4000)}!`])).toThrow(
      expect.objectContaining({ code: 'ERR_PATTERN_SLOW', exitCode: 7 }),
    );
    expect(patterns.look(['aaaa'])).toMatchObject({ kind: 'expected' });
  });

  it.each(['(', '[', 'a**', '\\', '(?<n', 'x{2,1}', ''])(
    'the pattern %j is rejected with the name of its flag',
    (text) => {
      expect(() => compilePattern('--expect', text)).toThrow(UsageError);
      expect(() => compilePattern('--expect', text)).toThrow(/^--expect /);
    },
  );

  it('a pattern longer than 4096 characters is rejected', () => {
    expect(() => compilePattern('--expect', 'a'.repeat(4097))).toThrow(/longer than 4096/);
  });
});
