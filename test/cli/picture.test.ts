import { describe, expect, it } from 'vitest';
import { svgOf } from '../../scripts/pictures/ansi-svg.mjs';

describe('the picture of a screen', () => {
  const svg = (line: string) => svgOf([line], { columns: 20, label: 'a "screen"' });

  it('text keeps its column and its colour', () => {
    const lines = svg('ab  \u001b[31mred\u001b[39m <').split('\n');
    expect(lines).toContainEqual(expect.stringMatching(/<text x="14" .*>ab<\/text>/));
    expect(lines).toContainEqual(expect.stringMatching(/x="47.6" .*fill="#f2777a".*>red</));
    expect(lines.join()).toContain('>&lt;</text>');
    expect(lines[0]).toContain('aria-label="a &quot;screen&quot;"');
  });

  it('blocks are rectangles of their height', () => {
    const rects = [...svg('▄█░').matchAll(/<rect x="([\d.]+)".* height="([\d.]+)"/g)];
    expect(rects.map(([, x, height]) => [x, height])).toEqual([
      ['14', '8'],
      ['22.4', '16'],
      ['30.8', '16'],
    ]);
  });
});
