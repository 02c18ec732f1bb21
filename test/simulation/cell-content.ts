/** What a cell holds when nothing was written, or zeros were. */
export const ZERO = 0;
export const CELL_BYTES = 4096;

/** The bytes of a cell that holds `value`: where it belongs and what it is, over and over. */
export function contentOf(cell: number, value: number): Buffer {
  const bytes = Buffer.alloc(CELL_BYTES);
  if (value === ZERO) return bytes;
  const word = Buffer.alloc(8);
  word.writeUInt32BE(cell, 0);
  word.writeUInt32BE(value, 4);
  return bytes.fill(word);
}

/** The value that a cell's bytes spell, or what is wrong with them. */
export function valueIn(bytes: Buffer, at: number, cell: number): number | string {
  const content = bytes.subarray(at, at + CELL_BYTES);
  const value = content.readUInt32BE(4);
  if (content.equals(contentOf(cell, value))) return value;
  return `cell ${cell} holds bytes of no one write (cell ${content.readUInt32BE(0)}: ${value})`;
}
