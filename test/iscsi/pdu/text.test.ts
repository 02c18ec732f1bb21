import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ProtocolError } from '../../../src/base/errors.js';
import {
  decodeText,
  encodeText,
  parseBinaryValue,
  parseBooleanValue,
  parseListOfValues,
  parseNumericalValue,
  quoted,
  splitText,
  TextCollector,
} from '../../../src/iscsi/pdu/text.js';

const bytes = (text: string) => Buffer.from(text, 'utf8');

describe('RFC 7143 §6.1 (Text Format): pairs', () => {
  it('every pair, the last too, is followed by one zero byte', () => {
    const text = encodeText([
      ['InitialR2T', 'No'],
      ['TargetAlias', 'Bob-s Disk'],
    ]);
    expect(text.toString('latin1')).toBe('InitialR2T=No\0TargetAlias=Bob-s Disk\0');
    expect(() => decodeText(bytes('InitialR2T=No'))).toThrow(ProtocolError);
  });

  it('a value is all that follows the first "=", so it may have more of them', () => {
    expect(decodeText(bytes('X-a=b=c\0Empty=\0'))).toEqual([
      ['X-a', 'b=c'],
      ['Empty', ''],
    ]);
  });

  it('a pair without "=" is malformed', () => {
    expect(() => decodeText(bytes('InitialR2T\0'))).toThrow(/no "="/);
  });

  it('a key has at most 63 characters', () => {
    const longest = `K${'x'.repeat(62)}`;
    expect(decodeText(bytes(`${longest}=1\0`))).toEqual([[longest, '1']]);
    expect(() => decodeText(bytes(`${longest}y=1\0`))).toThrow(/64 characters/);
  });

  it.each(['', ' Key', 'K ey', 'K,', '1Key', 'Kéy'])('the key %j is rejected', (key) => {
    expect(() => decodeText(bytes(`${key}=1\0`))).toThrow(ProtocolError);
  });

  it('keys of the RFC that are no standard-label are keys: a small letter first, a "#"', () => {
    const pairs = decodeText(bytes('iSCSIProtocolLevel=1\0X#NodeArchitecture=a\0'));
    expect(pairs.map(([key]) => key)).toEqual(['iSCSIProtocolLevel', 'X#NodeArchitecture']);
  });

  it('text is UTF-8', () => {
    expect(decodeText(bytes('TargetAlias=Gerät\0'))).toEqual([['TargetAlias', 'Gerät']]);
    expect(() => decodeText(Buffer.from([0x4b, 0x3d, 0xff, 0x00]))).toThrow(/UTF-8/);
  });

  it('zero bytes that pad the text are no pairs', () => {
    expect(decodeText(bytes('InitialR2T=No\0\0\0'))).toEqual([['InitialR2T', 'No']]);
  });

  it('any bytes either decode or throw a ProtocolError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (input) => {
        try {
          for (const [key] of decodeText(Buffer.from(input))) expect(key).not.toContain('\0');
        } catch (error) {
          expect(error).toBeInstanceOf(ProtocolError);
        }
      }),
    );
  });
});

describe('RFC 7143 §6.1 (Text Format): a text in several PDUs', () => {
  it('a text is cut at the length of the receiver, in the middle of a pair too', () => {
    const parts = splitText(bytes('ABCDE=12345\0'), 5);
    expect(parts.map(String)).toEqual(['ABCDE', '=1234', '5\0']);
    expect(splitText(bytes('ABCDE'), 5)).toHaveLength(1);
    expect(splitText(Buffer.alloc(0), 5)).toEqual([Buffer.alloc(0)]);
  });

  it('a text in parts is joined, and bounded', () => {
    const collector = new TextCollector(10);
    collector.add(bytes('ABC'));
    collector.add(bytes('=1\0'));
    expect(collector.take().toString()).toBe('ABC=1\0');
    collector.add(bytes('0123456789'));
    expect(() => collector.add(bytes('x'))).toThrow(ProtocolError);
  });
});

describe('RFC 7143 §6.1 (Text Format): values', () => {
  it.each([
    ['0', 0],
    ['8192', 8192],
    ['0x2000', 8192],
    ['0X00fF', 255],
    ['18446744073709551615', 2 ** 64],
  ])('the numerical-value %s is %d', (text, value) => {
    expect(parseNumericalValue(text)).toBe(value);
  });

  it.each(['', '08', '-1', '1.5', '0x', '0xg', ' 1', '1 ', '18446744073709551616', '0b1'])(
    'the text %j is no numerical-value',
    (text) => expect(parseNumericalValue(text)).toBeNull(),
  );

  it('a boolean-value is Yes or No with that very case', () => {
    expect(['Yes', 'No', 'yes', 'NO', ''].map(parseBooleanValue)).toEqual([
      true,
      false,
      null,
      null,
      null,
    ]);
  });

  it('a list-of-values has text-values between commas', () => {
    expect(parseListOfValues('CRC32C,None')).toEqual(['CRC32C', 'None']);
    expect(parseListOfValues('CRC32C,')).toBeNull();
    expect(parseListOfValues('CRC32C, None')).toBeNull();
  });

  it('a hex-constant of n digits is (n + 1) / 2 bytes, leading zeros counted', () => {
    expect(parseBinaryValue('0x00Ff', 8)).toEqual(Buffer.of(0, 0xff));
    expect(parseBinaryValue('0X123', 8)).toEqual(Buffer.of(0x01, 0x23));
  });

  it('a base64-constant is that of RFC 4648 §10 (Test Vectors)', () => {
    expect(parseBinaryValue('0bZm9vYmFy', 8)?.toString()).toBe('foobar');
    expect(parseBinaryValue('0BZm9vYg==', 8)?.toString()).toBe('foob');
  });

  it.each(['', '0x', '0b', '12', '0xzz', '0bZm9', '0bZ===', '0bZm9v!mFy', '0x0102030405060708ff'])(
    'the text %j is no binary-value of at most 8 bytes',
    (text) => expect(parseBinaryValue(text, 8)).toBeNull(),
  );

  it('a text of the other side is quoted without control characters and cut', () => {
    expect(quoted('a\u001b[31m\u202eb')).toBe('"a\ufffd[31m\ufffdb"');
    expect(quoted('x'.repeat(100))).toHaveLength(67);
  });
});
