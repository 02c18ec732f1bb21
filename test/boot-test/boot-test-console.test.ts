import { describe, expect, it } from 'vitest';
import { ConsoleText } from '../../src/boot-test/boot-test-console.js';

/** What `text` leaves, byte by byte and all at once. */
function read(text: string | Buffer): { lines: string[]; unfinished: string } {
  const bytes = Buffer.from(text);
  const whole = new ConsoleText();
  whole.push(bytes);
  const slow = new ConsoleText();
  for (const byte of bytes) slow.push(Buffer.from([byte]));
  const result = { lines: whole.takeLines(), unfinished: whole.unfinished };
  expect({ lines: slow.takeLines(), unfinished: slow.unfinished }).toEqual(result);
  return result;
}

describe('console text', () => {
  it('a console yields its lines, without empty ones, and the start of the next line', () => {
    expect(read('one\r\ntwo\n\n\rthree\rlogin: ')).toEqual({
      lines: ['one', 'two', 'three'],
      unfinished: 'login: ',
    });
  });

  it.each([
    ['colours (SGR)', '\x1b[1;31mred\x1b[0m\n', ['red']],
    ['private modes', '\x1b[?25l\x1b[?7lshown\x1b[?25h\n', ['shown']],
    ['a reset, and a choice of characters', '\x1bc\x1b(Btext\x1b)0\n', ['text']],
    ['a title (OSC) ended by BEL', '\x1b]0;title\x07text\n', ['text']],
    ['a title (OSC) ended by ST', '\x1b]0;title\x1b\\text\n', ['text']],
    ['a device control string', '\x1bPq#0;2;0;0;0\x1b\\text\n', ['text']],
    ['a sequence that another one cuts off', '\x1b[3\x1b[0mtext\n', ['text']],
    ['control characters', 'a\x00b\x07c\x0ed\x7fe\n', ['abcde']],
    ['control characters of ISO 8859-1', 'a\u009b31mb\n', ['a31mb']],
    ['backspaces', 'abx\bc\n', ['abc']],
  ])('console lines have no control sequences (ECMA-48): %s', (_, text, lines) => {
    expect(read(text)).toEqual({ lines, unfinished: '' });
  });

  it('a cursor move to another row ends the line, as where firmware paints its screen', () => {
    const screen = '\x1b[2J\x1b[01;01HFirst\x1b[02;01HSecond\x1b[3dThird\x1b[J';
    expect(read(screen)).toEqual({ lines: ['First', 'Second', 'Third'], unfinished: '' });
  });

  it('a cursor move to its present position does not end the line, as in SeaBIOS', () => {
    // As it came from SeaBIOS 1.16.2, while GRUB was speaking.
    const seabios =
      '\x1b[0;30;47mWelcome t\x1b[04;09H\x1b[04;10Ho GRUB!\r\n\n\x1b[H\x1b[J\x1b[1;1H';
    expect(read(seabios)).toEqual({ lines: ['Welcome to GRUB!'], unfinished: '' });
  });

  it('multi-byte characters stay whole, and invalid UTF-8 is replaced', () => {
    expect(read('größe ✓\n').lines).toEqual(['größe ✓']);
    expect(read(Buffer.from([0x61, 0xff, 0x62, 0x0a])).lines).toEqual(['a\ufffdb']);
  });

  it('console lines are bounded: an endless line is cut, an endless sequence becomes text', () => {
    const long = read('x'.repeat(10_000));
    expect(long.lines.map((line) => line.length)).toEqual([4096, 4096]);
    expect(long.unfinished).toHaveLength(10_000 - 2 * 4096);
    expect(read(`\x1b[${'1'.repeat(200)}text\n`).lines[0]).toMatch(/1+text$/);
    expect(read(`\x1b]${'t'.repeat(5000)}text\n`).lines[0]).toMatch(/t+text$/);
  });
});
