import { expect, it } from 'vitest';
import { native } from '../../src/io/native.js';

it.each([-1, 1 << 16, 0x7fff_ffff])('slab %d is refused by the addon', (index) => {
  expect(() => native.setSlab(index, new Uint8Array(4))).toThrow(/from 0 to 65535/);
});

it('what is no memory is refused as a slab', () => {
  expect(() => native.setSlab(1, 'text' as never)).toThrow('a slab is a Uint8Array');
});
