import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isUnsupported, parseSense } from '../../src/scsi/sense.js';
import { SENSE_TABLE } from '../../src/scsi/sense-table.js';
import { ScsiStatus, statusName } from '../../src/scsi/status.js';
import { replyToWords, senseToWords, verdictOf, verdictOfSense } from '../../src/scsi/verdict.js';

const hex = (text: string): Buffer => Buffer.from(text, 'hex');

/** Fixed format sense of SPC-4 §4.5.3 made here by hand. */
function fixed(key: number, asc: number, ascq: number, responseCode = 0x70): Buffer {
  const bytes = Buffer.alloc(18);
  bytes[0] = responseCode;
  bytes[2] = key;
  bytes[7] = 10;
  bytes[12] = asc;
  bytes[13] = ascq;
  return bytes;
}

describe('sense data', () => {
  it('the sense of tgt after a login is a unit attention 29h/00h (captured on the wire)', () => {
    const sense = parseSense(hex('700006000000000a00000000290000000000'));
    expect(sense).toEqual({
      format: 'fixed',
      deferred: false,
      senseKey: 6,
      asc: 0x29,
      ascq: 0,
      information: null,
      fieldPointer: null,
      progress: null,
    });
  });

  it('sense in fixed format has INFORMATION if VALID is set (SPC-4 §4.5.3)', () => {
    const valid = parseSense(hex('f00003000012340a00000000110000000000'));
    expect(valid).toMatchObject({ senseKey: 3, asc: 0x11, information: 0x1234 });
    const invalid = parseSense(hex('700003000012340a00000000110000000000'));
    expect(invalid.information).toBeNull();
  });

  it('sense in fixed format points to the wrong field (SPC-4 §4.5.2)', () => {
    // SKSV, C/D, BPV, bit 5 of byte 2.
    const sense = parseSense(hex('700005000000000a000000002400' + '00' + 'cd0002'));
    expect(sense.fieldPointer).toEqual({ in: 'cdb', byte: 2, bit: 5 });
    expect(senseToWords(sense)).toContain('cdb byte 2 bit 5');
  });

  it('sense in fixed format reports progress in parts of 65536', () => {
    const sense = parseSense(hex('700002000000000a000000000404' + '00' + '808000'));
    expect(sense.progress).toBe(0.5);
  });

  it('sense in descriptor format has its facts in bytes 1–3 and in descriptors (SPC-4 §4.5.2)', () => {
    const sense = parseSense(
      hex('72031100' + '00000014' + '000a8000' + '0000000123456789' + '02060000' + '80123400'),
    );
    expect(sense).toMatchObject({
      format: 'descriptor',
      senseKey: 3,
      asc: 0x11,
      ascq: 0,
      information: 0x1_2345_6789,
    });
  });

  it('sense of response codes 71h and 73h is deferred', () => {
    expect(parseSense(fixed(3, 0x0c, 0, 0x71)).deferred).toBe(true);
    expect(parseSense(hex('73030c0000000000')).deferred).toBe(true);
    expect(parseSense(hex('72030c0000000000')).deferred).toBe(false);
  });

  it('sense that ends early counts what is missing as zero', () => {
    expect(parseSense(hex('7000'))).toMatchObject({ format: 'fixed', senseKey: 0, asc: 0 });
    expect(parseSense(hex('700002000000000a00000000')).asc).toBe(0);
    expect(parseSense(hex('7205'))).toMatchObject({ format: 'descriptor', senseKey: 5 });
    expect(parseSense(hex('')).format).toBe('none');
    expect(parseSense(hex('7f0102')).format).toBe('none');
  });

  it('bytes past ADDITIONAL SENSE LENGTH are ignored', () => {
    expect(parseSense(hex('7000030000000002' + '00000000' + '1100')).asc).toBe(0);
  });

  it('sense of any bytes is parsed and judged without an exception', () => {
    const start = fc.constantFrom(0x70, 0xf0, 0x71, 0x72, 0x73, 0x00, 0x7f);
    fc.assert(
      fc.property(start, fc.uint8Array({ maxLength: 252 }), (code, rest) => {
        const sense = parseSense(Buffer.from([code, ...rest]));
        expect(verdictOf(0x02, sense).words.length).toBeGreaterThan(0);
        expect(senseToWords(sense).length).toBeGreaterThan(0);
      }),
    );
  });

  it('the words of sense are the key, its meaning and the codes', () => {
    expect(senseToWords(parseSense(fixed(5, 0x21, 0)))).toBe(
      'ILLEGAL REQUEST: the blocks are outside the disk (05h/21h/00h)',
    );
    expect(replyToWords(0x02, parseSense(fixed(7, 0x27, 7)))).toBe(
      'CHECK CONDITION: DATA PROTECT: the target has no space left for the write (07h/27h/07h)',
    );
    expect(replyToWords(0x08, null)).toBe('BUSY: the logical unit is busy');
  });
});

describe('the sense table', () => {
  const judge = (key: number, asc: number, ascq: number) =>
    verdictOfSense(parseSense(fixed(key, asc, ascq)));

  it.each([
    [0x1, 0x17, 0x01, 'success', null],
    [0x2, 0x04, 0x01, 'away', 'becomingReady'],
    [0x2, 0x04, 0x02, 'away', 'notReady'],
    [0x2, 0x04, 0x0a, 'away', 'accessTransition'],
    [0x2, 0x04, 0x0b, 'away', 'portStandby'],
    [0x2, 0x04, 0x0c, 'away', 'portUnavailable'],
    [0x2, 0x04, 0x77, 'away', 'becomingReady'],
    [0x2, 0x3a, 0x00, 'away', 'mediumGone'],
    [0x2, 0x57, 0x00, 'away', 'notReady'],
    [0x5, 0x25, 0x00, 'away', 'lunGone'],
    [0x6, 0x28, 0x00, 'attention', 'mediumChanged'],
    [0x6, 0x29, 0x00, 'attention', 'powerOn'],
    [0x6, 0x29, 0x01, 'attention', 'powerOn'],
    [0x6, 0x29, 0x03, 'attention', 'reset'],
    [0x6, 0x29, 0x04, 'attention', 'powerOn'],
    [0x6, 0x29, 0x07, 'attention', 'nexusLost'],
    [0x6, 0x29, 0x55, 'attention', 'powerOn'],
    [0x6, 0x2a, 0x01, 'attention', 'modeChanged'],
    [0x6, 0x2a, 0x03, 'attention', 'reservationsPreempted'],
    [0x6, 0x2a, 0x09, 'attention', 'capacityChanged'],
    [0x6, 0x3f, 0x03, 'attention', 'inquiryChanged'],
    [0x6, 0x3f, 0x05, 'attention', 'inquiryChanged'],
    [0x6, 0x3f, 0x0e, 'attention', 'lunsChanged'],
    [0x6, 0x99, 0x99, 'attention', 'other'],
    [0xb, 0x00, 0x00, 'retry', null],
    [0xb, 0x4b, 0x04, 'retry', null],
    [0xf, 0x00, 0x00, 'success', null],
  ])(
    'the row %ih/%ih/%ih has the action %s and the attention %s',
    (key, asc, ascq, action, attention) => {
      expect(judge(key, asc, ascq)).toMatchObject({ action, attention });
    },
  );

  it.each([
    [0x2, 0x4c, 0x00, 'EIO'],
    [0x3, 0x11, 0x00, 'EIO'],
    [0x4, 0x44, 0x00, 'EIO'],
    [0x5, 0x20, 0x00, 'ENOTSUP'],
    [0x5, 0x21, 0x00, 'EINVAL'],
    [0x5, 0x24, 0x00, 'EINVAL'],
    [0x7, 0x27, 0x00, 'EPERM'],
    [0x7, 0x27, 0x07, 'ENOSPC'],
    [0xd, 0x00, 0x00, 'ENOSPC'],
    [0xe, 0x1d, 0x00, 'EIO'],
  ])('the row %ih/%ih/%ih fails with %s', (key, asc, ascq, errno) => {
    expect(judge(key, asc, ascq)).toMatchObject({ action: 'fail', errno });
  });

  it('an error that contradicts the known facts causes a new probe', () => {
    expect(judge(0x5, 0x21, 0).attention).toBe('capacityChanged');
    expect(judge(0x5, 0x25, 0).attention).toBe('lunGone');
    expect(judge(0x7, 0x27, 0).attention).toBe('modeChanged');
    expect(judge(0x7, 0x27, 7).attention).toBeNull();
  });

  it('a unit attention never ends as an error or a success', () => {
    const actions = new Set<string>();
    for (let code = 0; code < 65536; code += 1)
      actions.add(judge(0x6, code >> 8, code & 255).action);
    expect([...actions]).toEqual(['attention']);
  });

  it('the table has every row once, and one for each key alone', () => {
    const codes = SENSE_TABLE.map(([key, asc, ascq]) => `${key}/${asc}/${ascq}`);
    expect(new Set(codes).size).toBe(codes.length);
    for (let key = 0; key < 16; key += 1) expect(codes).toContain(`${key}/256/256`);
  });

  it('no key is a success but RECOVERED ERROR and COMPLETED', () => {
    const keys = SENSE_TABLE.filter(([, , , { action }]) => action === 'success').map(
      ([key]) => key,
    );
    expect(new Set(keys)).toEqual(new Set([0x1, 0xf]));
  });

  it('a deferred error counts as the loss of an earlier write (SPC-4 §4.5)', () => {
    const deferred = (key: number, asc: number) =>
      verdictOfSense(parseSense(fixed(key, asc, 0, 0x71)));
    expect(deferred(0x3, 0x0c)).toMatchObject({
      action: 'attention',
      attention: 'cachedWriteLost',
    });
    expect(deferred(0x4, 0x44).attention).toBe('cachedWriteLost');
    expect(deferred(0x7, 0x27).attention).toBe('cachedWriteLost');
    // The command that carried it was not performed, so it is no success even when harmless.
    expect(deferred(0x1, 0x00).action).toBe('retry');
    expect(deferred(0x6, 0x29).attention).toBe('powerOn');
  });
});

describe('SCSI status (SAM-5 §5.3.1)', () => {
  it.each([
    [0x00, 'GOOD', 'success'],
    [0x04, 'CONDITION MET', 'success'],
    [0x08, 'BUSY', 'retryAfterDelay'],
    [0x18, 'RESERVATION CONFLICT', 'fail'],
    [0x28, 'TASK SET FULL', 'retryAfterDelay'],
    [0x30, 'ACA ACTIVE', 'retryAfterDelay'],
    [0x40, 'TASK ABORTED', 'retry'],
    [0x22, 'status 22h', 'fail'],
  ])('the status %i is %s: %s', (status, name, action) => {
    expect(statusName(status)).toBe(name);
    expect(verdictOf(status, null).action).toBe(action);
  });

  it('BUSY and TASK SET FULL reduce the number of commands in flight', () => {
    expect(verdictOf(ScsiStatus.busy, null).congested).toBe(true);
    expect(verdictOf(ScsiStatus.taskSetFull, null).congested).toBe(true);
    expect(verdictOf(ScsiStatus.acaActive, null).congested).toBe(false);
  });

  it('CHECK CONDITION without sense data is no success', () => {
    expect(verdictOf(0x02, null).action).toBe('retry');
    expect(verdictOf(0x02, parseSense(hex('00'))).action).toBe('retry');
    expect(verdictOf(0x02, parseSense(fixed(0, 0, 0))).action).toBe('retry');
  });

  it('a status other than CHECK CONDITION ignores the sense bytes', () => {
    expect(verdictOf(0x00, parseSense(fixed(3, 0x11, 0))).action).toBe('success');
  });
});

describe('isUnsupported', () => {
  it('an unsupported command is ILLEGAL REQUEST with 20h, 24h or 26h', () => {
    expect(isUnsupported(parseSense(fixed(5, 0x20, 0)))).toBe(true);
    expect(isUnsupported(parseSense(fixed(5, 0x24, 0)))).toBe(true);
    expect(isUnsupported(parseSense(fixed(5, 0x21, 0)))).toBe(false);
    expect(isUnsupported(parseSense(fixed(3, 0x24, 0)))).toBe(false);
  });
});
