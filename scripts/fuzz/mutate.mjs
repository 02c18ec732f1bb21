// Inputs made of others: what a fuzzer changes in bytes that took a new way.

/** Numbers at whose edges mistakes are made. */
const EDGES = [
  0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
];
export const INPUT_BYTES_MAX = 4096;
const TOKEN_LENGTH_MAX = 64;

/**
 * Numbers from 0 to below `bound`, the same for the same seed (Marsaglia's xorshift of 32 bits).
 * @param {number} seed
 */
export function randomOf(seed) {
  let state = seed >>> 0 || 1;
  return (/** @type {number} */ bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
}

/**
 * @typedef {{ random: (bound: number) => number, tokens: readonly Buffer[],
 *   corpus: readonly Buffer[] }} Means
 */

/**
 * `input` with one to eight changes.
 * @param {Buffer} input
 * @param {Means} means
 */
export function mutated(input, means) {
  let bytes = input;
  for (let left = 1 << means.random(4); left > 0; left -= 1) bytes = changed(bytes, means);
  return bytes.subarray(0, INPUT_BYTES_MAX);
}

/**
 * @param {Buffer} bytes
 * @param {Means} means
 * @returns {Buffer}
 */
function changed(bytes, { random, tokens, corpus }) {
  const at = random(bytes.length + 1);
  const length = 1 + random(random(4) === 0 ? 64 : 8);
  const [head, rest, tail] = [
    bytes.subarray(0, at),
    bytes.subarray(at),
    bytes.subarray(at + length),
  ];
  const token = tokens[random(tokens.length || 1)] ?? Buffer.of(random(256));
  switch (random(9)) {
    case 0:
      return written(bytes, at, Buffer.of((bytes[at] ?? 0) ^ (1 << random(8))));
    case 1:
      return written(bytes, at, Buffer.of(random(256)));
    case 2:
      return written(bytes, at, edge(random));
    case 3:
      return Buffer.concat([head, Buffer.from(Array.from({ length }, () => random(256))), rest]);
    case 4:
      return Buffer.concat([head, tail]);
    case 5:
      return Buffer.concat([head, bytes.subarray(at, at + length), rest]);
    case 6:
      return Buffer.concat([head, token, rest]);
    case 7:
      return written(bytes, at, token);
    default: {
      const other = corpus[random(corpus.length || 1)] ?? bytes;
      const from = random(other.length + 1);
      const piece = other.subarray(from, from + 1 + random(64));
      return Buffer.concat([head, piece, random(2) === 0 ? rest : tail]);
    }
  }
}

/**
 * @param {Buffer} bytes
 * @param {number} at
 * @param {Buffer} piece
 */
function written(bytes, at, piece) {
  return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at + piece.length)]);
}

/** @param {(bound: number) => number} random */
function edge(random) {
  return numberBytes(EDGES[random(EDGES.length)] ?? 0, 1 << random(3), random(2) === 0);
}

/**
 * @param {number} value
 * @param {number} length
 * @param {boolean} isLittle
 */
function numberBytes(value, length, isLittle) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  const short = bytes.subarray(4 - length);
  return isLittle ? short.reverse() : short;
}

/**
 * A constant of the program as it may stand in an input.
 * @param {string | number} token
 * @returns {Buffer[]}
 */
export function tokenBytes(token) {
  if (typeof token === 'string') {
    return token === '' || token.length > TOKEN_LENGTH_MAX ? [] : [Buffer.from(token)];
  }
  if (!Number.isInteger(token) || token < 0 || token > 0xffff_ffff) return [];
  const length = token < 256 ? 1 : token < 65_536 ? 2 : 4;
  const asText = Buffer.from(String(token));
  if (length === 1) return [Buffer.of(token), asText];
  return [numberBytes(token, length, false), numberBytes(token, length, true), asText];
}
