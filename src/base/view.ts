/**
 * The same bytes as a DataView. Its accessors compile to single instructions; those of Buffer are
 * functions that check the types of their arguments, which costs the data path more than the rest
 * of a header.
 */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
