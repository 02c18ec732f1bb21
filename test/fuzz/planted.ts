/** A fault behind four conditions, which a fuzzer without knowledge of the way does not find. */
export function planted(data: Buffer): void {
  if (data.length < 16 || data.readUInt32BE(0) !== 0x6e_62_64_21) return;
  if (data.toString('latin1', 4, 8) !== 'iqn.') return;
  if (data.readUInt16LE(8) !== 0x1bad) return;
  if (data.toString('latin1', 10, 13) === 'LUN') throw new Error('the planted fault');
}

/** A loop without an end for one input. */
export function endless(data: Buffer): void {
  while (data[0] === 0x2a);
}
