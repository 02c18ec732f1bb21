import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { InvariantError, ProductError, ScsiError } from '../../src/base/errors.js';
import { completedFacts } from '../../src/scsi/completed-facts.js';
import { DiskFactsProbe, type FactReply } from '../../src/scsi/disk-facts.js';
import type { FactQuery } from '../../src/scsi/fact-queries.js';
import { ScsiDataError } from '../../src/scsi/response-data.js';
import { TGT } from './captured.js';

const NO_SENSE = Buffer.alloc(0);
const INVALID_FIELD = Buffer.from('700005000000000a00000000240000000000', 'hex');
const INVALID_OPCODE = Buffer.from('700005000000000a00000000200000000000', 'hex');
const POWER_ON = Buffer.from('700006000000000a00000000290000000000', 'hex');
const BECOMING_READY = Buffer.from('700002000000000a00000000040100000000', 'hex');
const HARDWARE_ERROR = Buffer.from('700004000000000a00000000440000000000', 'hex');
const ABORTED = Buffer.from('70000b000000000a00000000000000000000', 'hex');
const NO_UNIT = Buffer.from('700005000000000a00000000250000000000', 'hex');

function good(hex: string): FactReply {
  return { status: 0, data: Buffer.from(hex, 'hex'), sense: NO_SENSE };
}

function check(sense: Buffer): FactReply {
  return { status: 2, data: Buffer.alloc(0), sense };
}

/** The CDB of a query as hex, without the zeros that pad it. */
function cdbOf(query: FactQuery): string {
  const cdb = Buffer.alloc(16);
  query.writeCdb(cdb);
  return cdb.toString('hex');
}

/** What tgt answered on the wire to a CDB with this beginning. */
const TGT_ANSWERS: ReadonlyMap<string, string> = new Map([
  ['120000', TGT.inquiry],
  ['120100', TGT.vpd00],
  ['120180', TGT.vpd80],
  ['120183', TGT.vpd83],
  ['1201b0', TGT.vpdB0],
  ['1201b1', TGT.vpdB1],
  ['1201b2', TGT.vpdB2],
  ['9e1000', TGT.readCapacity16],
  ['250000', TGT.readCapacity10],
  ['1a083f', TGT.modeSense6All],
]);

type Answer = (cdb: string) => FactReply | undefined;

/** Runs a probe to its end against tgt's answers, with `override` asked first. */
function run(override: Answer = () => undefined): { probe: DiskFactsProbe; asked: string[] } {
  const probe = new DiskFactsProbe();
  const asked: string[] = [];
  for (let query = probe.nextQuery(); query !== null; query = probe.nextQuery()) {
    const cdb = cdbOf(query).slice(0, 6);
    asked.push(cdb);
    const answer = TGT_ANSWERS.get(cdb);
    const standard = answer === undefined ? check(INVALID_FIELD) : good(answer);
    probe.replyReceived(query, override(cdb) ?? standard);
  }
  return { probe, asked };
}

describe('DiskFactsProbe', () => {
  it('the facts of tgt are those that libiscsi and sg3_utils read (captured on the wire)', () => {
    expect(run().probe.facts()).toEqual({
      vendor: 'IET',
      product: 'VIRTUAL-DISK',
      revision: '0001',
      serial: 'beaf11',
      identifiers: [
        'naa.60000000000000000e00000000010001',
        'naa.3000000100000001',
        't10.IET     00010001',
      ],
      deviceType: 0,
      blockSizeBytes: 512,
      blockCount: 131072,
      physicalBlockExponent: 3,
      readOnly: false,
      writeCacheEnabled: true,
      dpoFua: true,
      commandQueuing: true,
      thin: { unmap: true, writeSame16Unmap: true, readsZero: true },
      limits: {
        maxTransferBlocks: 0xffff_ffff,
        optimalTransferBlocks: 0,
        optimalGranularity: 0,
        unmapLbaMax: 0xffff_ffff,
        unmapDescriptorsMax: 4095,
        unmapGranularity: 1,
        unmapAlignment: 0,
        writeSameBlocksMax: 0xffff,
      },
      rotational: null,
      notes: [],
    });
  });

  it.each([
    ['QNAP', 'iSCSI Storage', 1024],
    ['SYNOLOGY', 'iSCSI Storage', 1024],
    ['SYNOLOGY', 'Storage', 0xffff_ffff],
    ['QNAPS', 'iSCSI Storage', 0xffff_ffff],
  ])('the disk %s "%s" gets at most %i blocks of 512 bytes at once', (make, model, blocks) => {
    const inquiry = Buffer.from(TGT.inquiry, 'hex');
    inquiry.write(make.padEnd(8) + model.padEnd(16), 8, 'latin1');
    const { probe } = run((cdb) => (cdb === '120000' ? good(inquiry.toString('hex')) : undefined));
    expect(probe.facts().limits.maxTransferBlocks).toBe(blocks);
  });

  it('the probe requests VPD pages only if page 00h lists them', () => {
    const { probe, asked } = run((cdb) =>
      cdb === '120100' ? good('00000002' + '0083') : undefined,
    );
    expect(asked.filter((cdb) => cdb.startsWith('1201'))).toEqual(['120100', '120183']);
    expect(probe.facts()).toMatchObject({ serial: '', rotational: null });
  });

  it('the probe does without what the device rejects with ILLEGAL REQUEST', () => {
    const { probe, asked } = run((cdb) => {
      if (cdb === '120000' || cdb === '250000') return undefined;
      return check(cdb.startsWith('9e') ? INVALID_OPCODE : INVALID_FIELD);
    });
    expect(asked).toEqual([
      '120000',
      '120100',
      '9e1000',
      '250000',
      '1a083f',
      '1a0808',
      '1a080a',
      '5a083f',
    ]);
    expect(probe.facts()).toMatchObject({
      blockCount: 131072,
      identifiers: [],
      readOnly: false,
      writeCacheEnabled: false,
      dpoFua: false,
      thin: { unmap: false, writeSame16Unmap: false, readsZero: false },
    });
  });

  it('the probe requests the caching page alone if a request for all pages is rejected', () => {
    const { probe } = run((cdb) => {
      if (cdb === '1a083f') return check(INVALID_FIELD);
      // WP and DPOFUA are set; the page has WCE.
      return cdb === '1a0808' ? good(`1700900008120400${'00'.repeat(16)}`) : undefined;
    });
    expect(probe.facts()).toMatchObject({ readOnly: true, dpoFua: true, writeCacheEnabled: true });
  });

  it('a note says in words that a disk does not report its write cache, and what that means', () => {
    const { probe } = run((cdb) => (/^(1a|5a)/.test(cdb) ? check(INVALID_OPCODE) : undefined));
    const facts = probe.facts();
    expect(facts.writeCacheEnabled).toBe(false);
    expect(facts.notes).toHaveLength(1);
    expect(facts.notes[0]).toMatch(/^the disk has no caching mode page.*volatile.*power failure/);
    // Mode data without that page mean the same: here the control page alone.
    const control = `0f0000000a0a${'00'.repeat(10)}`;
    const partly = run((cdb) => (cdb === '1a083f' ? good(control) : undefined));
    expect(partly.probe.facts().notes).toEqual(facts.notes);
    expect(run().probe.facts().notes).toEqual([]);
  });

  it('the facts say whether a disk takes several commands at a time: CMDQUE, or BQUE (SPC-3)', () => {
    const withQueuing = (byte6: string, byte7: string) => {
      const inquiry = TGT.inquiry.slice(0, 12) + byte6 + byte7 + TGT.inquiry.slice(16);
      return run((cdb) => (cdb === '120000' ? good(inquiry) : undefined)).probe.facts();
    };
    expect(withQueuing('00', '02').commandQueuing).toBe(true);
    expect(withQueuing('80', '00').commandQueuing).toBe(true);
    expect(withQueuing('00', '00').commandQueuing).toBe(false);
    // Their neighbours (MULTIP, LINKED) say nothing of it.
    expect(withQueuing('7f', 'fd').commandQueuing).toBe(false);
  });

  it('the probe repeats a command after a unit attention or while the unit becomes ready', () => {
    const trouble = [check(POWER_ON), check(BECOMING_READY), { ...good(''), status: 8 }];
    const { probe, asked } = run((cdb) => (cdb === '9e1000' ? trouble.shift() : undefined));
    expect(asked.filter((cdb) => cdb === '9e1000')).toHaveLength(4);
    expect(probe.facts().blockCount).toBe(131072);
  });

  it('the probe ends with an error after ten replies that request a retry', () => {
    let answers = 0;
    const always = (cdb: string): FactReply | undefined => {
      if (cdb !== '120000') return undefined;
      answers += 1;
      return check(POWER_ON);
    };
    expect(() => run(always)).toThrow(ScsiError);
    expect(answers).toBe(10);
  });

  it('the probe fails if a required command fails, or if the unit is not there', () => {
    const failing = (begin: string, sense: Buffer) => () =>
      run((cdb) => (cdb === begin ? check(sense) : undefined));
    expect(failing('120000', INVALID_FIELD)).toThrow(ScsiError);
    expect(failing('120100', NO_UNIT)).toThrow(ScsiError);
  });

  it.each([
    ['RESERVATION CONFLICT', { ...good(''), status: 0x18 }],
    ['BUSY', { ...good(''), status: 0x08 }],
    ['TASK ABORTED', { ...good(''), status: 0x40 }],
    ['HARDWARE ERROR', check(HARDWARE_ERROR)],
    ['ABORTED COMMAND', check(ABORTED)],
    ['CHECK CONDITION without sense data', check(NO_SENSE)],
    ['becoming ready', check(BECOMING_READY)],
  ])(
    'a disk is served whatever optional command it ends with %s, and the parts are named',
    (_name, reply) => {
      const parts = {
        '120100': 'pages,limits,characteristics,provisioning',
        '120180': 'serial',
        '120183': 'identifiers',
        '1201b0': 'limits',
        '1201b1': 'characteristics',
        '1201b2': 'provisioning',
        '9e1000': 'capacity16',
      };
      for (const [query, expected] of Object.entries(parts)) {
        const facts = run((cdb) => (cdb === query ? reply : undefined)).probe.facts();
        expect(facts.blockCount).toBe(131072);
        expect(facts.unread?.join()).toBe(expected);
        expect(facts.notes[0]).toMatch(/^(VPD page|READ CAPACITY\(16\)).* cannot be read: /);
      }
      const { probe } = run((cdb) => (/^(1a|5a)/.test(cdb) ? reply : undefined));
      expect(probe.facts()).toMatchObject({ unread: ['mode'], writeCacheEnabled: true });
    },
  );

  it('the probe requests the identity if the list of VPD pages cannot be read', () => {
    const { probe, asked } = run((cdb) => (cdb === '120100' ? check(ABORTED) : undefined));
    expect(asked.filter((cdb) => /^1201b/.test(cdb))).toEqual([]);
    expect(probe.facts()).toMatchObject({ serial: 'beaf11' });
    expect(probe.facts().identifiers).toHaveLength(3);
  });

  it('what one MODE SENSE cannot read and another one can is read', () => {
    const { probe } = run((cdb) => {
      if (cdb === '1a083f') return { ...good(''), status: 0x18 };
      return cdb === '1a0808' ? good(`1700900008120000${'00'.repeat(16)}`) : undefined;
    });
    expect(probe.facts().unread).toBeUndefined();
    expect(probe.facts()).toMatchObject({ readOnly: true, writeCacheEnabled: false });
  });

  it('parts that cannot be read now are those that were known, and no other is', () => {
    const known = run().probe.facts();
    const hidden = new Set(['120180', '120183', '1201b0', '9e1000', '1a083f', '1a0808', '5a083f']);
    const busy = { ...good(''), status: 0x18 };
    const found = run((cdb) => (hidden.has(cdb) ? busy : undefined)).probe.facts();
    expect(found).toMatchObject({ serial: '', identifiers: [], thin: { unmap: false } });
    const { notes: _notes, ...completed } = completedFacts(found, known);
    expect(completed).toEqual({ ...known, notes: undefined });
    expect(completedFacts(found, found).unread).toEqual(found.unread);
    expect(completedFacts(known, found)).toEqual(known);
  });

  it('a malformed optional reply becomes a note, and the probe continues', () => {
    const { probe } = run((cdb) => (cdb === '1201b0' ? good(TGT.inquiry) : undefined));
    const facts = probe.facts();
    expect(facts.notes).toHaveLength(1);
    expect(facts.notes[0]).toMatch(/^VPD page b0/);
    // Without limits for it UNMAP is not used.
    expect(facts.thin.unmap).toBe(false);
  });

  it('the facts are those of a disk, and no other device has any', () => {
    const inquiry = (first: string) => (cdb: string) =>
      cdb === '120000' ? good(first + TGT.inquiry.slice(2)) : undefined;
    const controller = run(inquiry('0c'));
    expect(controller.asked).not.toContain('9e1000');
    expect(controller.probe.inquiry?.deviceType).toBe(0x0c);
    expect(() => controller.probe.facts()).toThrow(/storage array controller/);
    const nothing = run(inquiry('7f'));
    expect(nothing.asked).toEqual(['120000']);
    expect(() => nothing.probe.facts()).toThrow(ScsiDataError);
  });

  it('a block size that is no power of two is rejected', () => {
    const blocks = (size: string) => () =>
      run((cdb) =>
        cdb === '9e1000' ? good(`00000000000003ff${size}${'00'.repeat(20)}`) : undefined,
      ).probe.facts();
    expect(blocks('00001000')()).toMatchObject({ blockSizeBytes: 4096, blockCount: 1024 });
    expect(blocks('00000208')).toThrow(/520-byte blocks/);
    expect(blocks('00000100')).toThrow(ScsiDataError);
  });

  it('the facts cover disks over 2 TiB, where READ CAPACITY(10) reports FFFFFFFFh', () => {
    const large = run((cdb) =>
      cdb === '9e1000' ? good(`00000001ffffffff00000200${'00'.repeat(20)}`) : undefined,
    );
    expect(large.probe.facts().blockCount).toBe(2 ** 33);
    const blind = run((cdb) => {
      if (cdb === '9e1000') return check(INVALID_OPCODE);
      return cdb === '250000' ? good('ffffffff00000200') : undefined;
    });
    expect(() => blind.probe.facts()).toThrow(ScsiDataError);
  });

  it('the facts are available only at the end of the probe, and replies come in its order', () => {
    const probe = new DiskFactsProbe();
    expect(() => probe.facts()).toThrow(InvariantError);
    const query = probe.nextQuery();
    probe.replyReceived(query!, good(TGT.inquiry));
    expect(() => probe.replyReceived(query!, good(TGT.inquiry))).toThrow(InvariantError);
  });

  it('any bytes of a target yield facts or an error of the device', () => {
    const answers = fc.infiniteStream(fc.uint8Array({ maxLength: 300 }));
    fc.assert(
      fc.property(answers, fc.boolean(), (stream, isDisk) => {
        try {
          run((cdb) => {
            const data = Buffer.from(stream.next().value);
            if (cdb === '120000' && isDisk) return undefined;
            return { status: 0, data, sense: NO_SENSE };
          }).probe.facts();
        } catch (error) {
          expect(error).toBeInstanceOf(ProductError);
          expect(error).not.toBeInstanceOf(InvariantError);
        }
      }),
    );
  });
});

describe('thin provisioning', () => {
  const thin = (b2: string, capacityFlags: string) =>
    run((cdb) => {
      if (cdb === '1201b2') return good(b2);
      if (cdb !== '9e1000') return undefined;
      return good(`00000000000003ff000002000000${capacityFlags}${'00'.repeat(16)}`);
    }).probe.facts().thin;

  it('thin provisioning needs LBPME, whatever page B2h reports (SBC-3)', () => {
    expect(thin('00b2000400e40200', '0000')).toEqual({
      unmap: false,
      writeSame16Unmap: false,
      readsZero: false,
    });
  });

  it('unmapped blocks read as zeros if LBPRZ of page B2h is odd, and not if it names a pattern', () => {
    expect(thin('00b20004008c0200', '8000').readsZero).toBe(true);
    expect(thin('00b2000400880200', 'c000').readsZero).toBe(false);
    expect(thin('00b2000400800200', 'c000').readsZero).toBe(true);
    expect(thin('00b2000400800200', '8000').readsZero).toBe(false);
  });

  it('UNMAP is used according to LBPU and WRITE SAME(16) according to LBPWS', () => {
    expect(thin('00b2000400800200', '8000')).toMatchObject({
      unmap: true,
      writeSame16Unmap: false,
    });
    expect(thin('00b2000400400200', '8000')).toMatchObject({
      unmap: false,
      writeSame16Unmap: true,
    });
  });
});
