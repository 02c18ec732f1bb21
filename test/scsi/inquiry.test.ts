import { describe, expect, it } from 'vitest';
import { decodeReadCapacity10, decodeReadCapacity16 } from '../../src/scsi/capacity.js';
import { decodeDesignators, logicalUnitIdentifiers } from '../../src/scsi/designator.js';
import { decodeInquiry } from '../../src/scsi/inquiry.js';
import { inquiryView } from '../../src/scsi/inquiry-view.js';
import { decodeModeSense6, decodeModeSense10 } from '../../src/scsi/mode.js';
import { ScsiDataError } from '../../src/scsi/response-data.js';
import { decodeBlockLimits, decodeUnitSerialNumber } from '../../src/scsi/vpd.js';
import { TGT } from './captured.js';

const hex = (text: string): Buffer => Buffer.from(text, 'hex');

/** Page 83h with these designators, each as hex. */
function page83(...designators: string[]): Buffer {
  const content = designators.join('');
  return hex(`0083${(content.length / 2).toString(16).padStart(4, '0')}${content}`);
}

describe('standard INQUIRY data', () => {
  it('the INQUIRY data of tgt are what libiscsi shows (captured on the wire)', () => {
    expect(decodeInquiry(hex(TGT.inquiry))).toEqual({
      peripheralQualifier: 0,
      deviceType: 0,
      removable: false,
      version: 5,
      responseDataFormat: 2,
      targetPortGroupSupport: 0,
      thirdPartyCopy: false,
      protection: false,
      commandQueuing: true,
      vendor: 'IET',
      product: 'VIRTUAL-DISK',
      revision: '0001',
      versionDescriptors: [0x04c0, 0x0960, 0x0300],
    });
  });

  it('standard INQUIRY data of old devices may end after 5 bytes, and what is missing is empty', () => {
    expect(() => decodeInquiry(hex(TGT.inquiry).subarray(0, 4))).toThrow(ScsiDataError);
    const short = decodeInquiry(hex(TGT.inquiry).subarray(0, 5));
    expect(short).toMatchObject({ deviceType: 0, peripheralQualifier: 0, version: 5 });
    expect(short).toMatchObject({ vendor: '', product: '', revision: '', commandQueuing: false });
    expect(decodeInquiry(hex(TGT.inquiry).subarray(0, 20)).product).toBe('VIRT');
    expect(decodeInquiry(hex(TGT.inquiry).subarray(0, 36)).versionDescriptors).toEqual([]);
  });

  it('control characters are replaced, so that none reaches a terminal', () => {
    const data = hex(TGT.inquiry);
    data.write('\x1b[31mE\x07\xff', 8, 'latin1');
    expect(decodeInquiry(data).vendor).toBe('?[31mE??');
  });
});

describe('VPD pages', () => {
  it('a page is rejected if another page or standard data arrived', () => {
    expect(() => decodeUnitSerialNumber(hex(TGT.vpd83))).toThrow(ScsiDataError);
    expect(() => decodeUnitSerialNumber(hex(TGT.inquiry))).toThrow(ScsiDataError);
    expect(() => decodeUnitSerialNumber(hex('0080'))).toThrow(ScsiDataError);
  });

  it('a page ends at its PAGE LENGTH', () => {
    expect(decodeUnitSerialNumber(hex('00800002' + '41424344'))).toBe('AB');
  });

  it('page B0h has its fields where SBC-3 puts them', () => {
    const page = hex(
      '00b0003c' +
        '01080010' +
        '00000800' +
        '00000400' +
        '00000000' +
        '00100000' +
        '00000040' +
        '00000020' +
        '80000008' +
        '0000000000008000' +
        '00'.repeat(20),
    );
    expect(decodeBlockLimits(page)).toEqual({
      writeSameNonZero: true,
      compareAndWriteBlocksMax: 8,
      optimalGranularityBlocks: 16,
      transferBlocksMax: 2048,
      optimalTransferBlocks: 1024,
      unmapBlocksMax: 0x10_0000,
      unmapDescriptorsMax: 64,
      unmapGranularityBlocks: 32,
      unmapAlignmentBlocks: 8,
      writeSameBlocksMax: 0x8000,
    });
  });

  it('page B0h of SBC-2 is shorter and reports nothing about UNMAP', () => {
    const limits = decodeBlockLimits(hex('00b0000c' + '00000008' + '00000080' + '00000040'));
    expect(limits).toMatchObject({
      transferBlocksMax: 128,
      unmapBlocksMax: 0,
      unmapAlignmentBlocks: null,
    });
    expect(() => decodeBlockLimits(hex('00b00004' + '00000008'))).toThrow(ScsiDataError);
  });
});

describe('designators (SPC-4 §7.8)', () => {
  it('designators are shown with the name of their kind', () => {
    const designators = decodeDesignators(
      page83(
        '01030010' + '6001405d1a2b3c4d5e6f708192a3b4c5',
        '01020008' + '0011223344556677',
        '0208000c' + '69716e2e782e790000000000',
        '03080008' + '6e61612e31320000',
        '01140004' + '00000001',
        '01150004' + '00000102',
        '010a0012' + '1000' + '00112233445566778899aabbccddeeff',
        '01000002' + 'beef',
        '01070010' + '000102030405060708090a0b0c0d0e0f',
        '010f0001' + '7f',
      ),
    );
    expect(designators.map(({ text }) => text)).toEqual([
      'naa.6001405d1a2b3c4d5e6f708192a3b4c5',
      'eui.0011223344556677',
      'iqn.x.y',
      'naa.12',
      'relative-target-port.1',
      'target-port-group.258',
      'uuid.00112233-4455-6677-8899-aabbccddeeff',
      'vendor.beef',
      'md5.000102030405060708090a0b0c0d0e0f',
      'unknown.7f',
    ]);
    expect(designators[4]).toMatchObject({
      type: 'relative-target-port',
      association: 'target-port',
      codeSet: 'binary',
    });
  });

  it('designators of ports and the target are no identity of the unit', () => {
    const designators = decodeDesignators(
      page83('01130008' + '5000000000000001', '01230008' + '5000000000000002'),
    );
    expect(logicalUnitIdentifiers(designators)).toEqual([]);
  });

  it('designators are sorted so that worldwide names come before local and vendor ones', () => {
    const designators = decodeDesignators(
      page83(
        '02010008' + '4142434445464748',
        '01000002' + 'beef',
        '01030008' + '3000000000000001',
        '01020008' + '0011223344556677',
        '01030008' + '5000c50012345678',
        '01030010' + '6001405d1a2b3c4d5e6f708192a3b4c5',
        '01030008' + '5000c50012345678',
      ),
    );
    expect(logicalUnitIdentifiers(designators)).toEqual([
      'naa.6001405d1a2b3c4d5e6f708192a3b4c5',
      'naa.5000c50012345678',
      'eui.0011223344556677',
      'naa.3000000000000001',
      't10.ABCDEFGH',
      'vendor.beef',
    ]);
  });

  it('designators that are cut off are rejected, as a part of an identity is none', () => {
    expect(() => decodeDesignators(hex(TGT.vpd83).subarray(0, 64))).toThrow(ScsiDataError);
    // Also between two of them: tgt's first ends at byte 44.
    expect(() => decodeDesignators(hex(TGT.vpd83).subarray(0, 44))).toThrow(ScsiDataError);
    expect(() => decodeDesignators(page83('01030010' + '6001405d'))).toThrow(ScsiDataError);
    expect(() => decodeDesignators(page83('0103'))).toThrow(ScsiDataError);
  });
});

describe('capacity', () => {
  it('the capacity is the last address and the block length (SBC-3)', () => {
    expect(decodeReadCapacity10(hex(TGT.readCapacity10))).toMatchObject({
      blockCount: 131072,
      blockSizeBytes: 512,
    });
    expect(decodeReadCapacity16(hex(TGT.readCapacity16))).toEqual({
      blockCount: 131072,
      blockSizeBytes: 512,
      protectionType: 0,
      physicalBlockExponent: 3,
      lowestAlignedLba: 0,
      provisioningManaged: true,
      readsZero: true,
    });
  });

  it('READ CAPACITY(16) has protection type and alignment in bytes 12–15', () => {
    const data = hex(`00000000000003ff0000100005300007${'00'.repeat(16)}`);
    expect(decodeReadCapacity16(data)).toMatchObject({
      protectionType: 3,
      physicalBlockExponent: 0,
      lowestAlignedLba: 7,
      provisioningManaged: false,
    });
  });

  it('a capacity of FFFFFFFFh in READ CAPACITY(10) means that the 16-byte form is needed', () => {
    expect(decodeReadCapacity10(hex('ffffffff00000200'))).toBeNull();
  });

  it('a capacity beyond 2^53 bytes is exact, as it is whole blocks', () => {
    const largest = decodeReadCapacity16(hex(`001ffffffffffffe00000200${'00'.repeat(20)}`));
    expect(largest).toMatchObject({ blockCount: 2 ** 53 - 1, blockSizeBytes: 512 });
  });

  it('a capacity that no number holds exactly, or with empty blocks, is rejected', () => {
    const tail = `00000200${'00'.repeat(20)}`;
    expect(() => decodeReadCapacity16(hex(`ffffffffffffffff${tail}`))).toThrow(ScsiDataError);
    expect(() => decodeReadCapacity16(hex(`001fffffffffffff${tail}`))).toThrow(ScsiDataError);
    // 2^63 bytes: more than an NBD client can count.
    const of4096 = `00001000${'00'.repeat(20)}`;
    expect(() => decodeReadCapacity16(hex(`0007ffffffffffff${of4096}`))).toThrow(ScsiDataError);
    expect(() => decodeReadCapacity10(hex('0000000100000000'))).toThrow(ScsiDataError);
    expect(() => decodeReadCapacity10(hex('00000001000002'))).toThrow(ScsiDataError);
    expect(() => decodeReadCapacity16(hex('0000000000000001000002'))).toThrow(ScsiDataError);
  });
});

describe('mode pages (SPC-4 §7.5)', () => {
  it('the mode pages of tgt have WCE and DPOFUA set (captured on the wire)', () => {
    expect(decodeModeSense6(hex(TGT.modeSense6All))).toEqual({
      writeProtected: false,
      dpoFua: true,
      caching: { writeCacheEnabled: true, readCacheDisabled: false },
      control: { descriptorSense: false, softwareWriteProtect: false, taskAbortedStatus: false },
      // tgt begins with an empty page 00h.
      pages: [0x00, 0x02, 0x08, 0x0a, 0x1c],
    });
  });

  it('mode pages of MODE SENSE(10) come after a header of eight bytes', () => {
    const data = hex(`001a0090000000000812010${'0'.repeat(33)}`);
    expect(decodeModeSense10(data)).toMatchObject({
      writeProtected: true,
      dpoFua: true,
      caching: { writeCacheEnabled: false, readCacheDisabled: true },
    });
  });

  it('mode pages with a subpage are skipped by their longer header', () => {
    const data = hex('13000000' + '4a01000400000000' + '0a060400084000' + '00');
    expect(decodeModeSense6(data)).toMatchObject({
      control: { descriptorSense: true, softwareWriteProtect: true, taskAbortedStatus: true },
      pages: [0x0a],
    });
  });

  it('mode pages that were cut off are left out', () => {
    expect(decodeModeSense6(hex('17000000' + '08120400')).caching).toBeNull();
    expect(decodeModeSense6(hex('03000000')).pages).toEqual([]);
  });

  it('block descriptors longer than the data are rejected', () => {
    expect(() => decodeModeSense6(hex('03000008'))).toThrow(ScsiDataError);
    expect(() => decodeModeSense10(hex('0006000000000010'))).toThrow(ScsiDataError);
    expect(() => decodeModeSense6(hex('030000'))).toThrow(ScsiDataError);
  });
});

describe('inquiryView', () => {
  it('the view names the page and its content', () => {
    expect(inquiryView(hex(TGT.inquiry), null)).toMatchObject({
      kind: 'standard',
      deviceTypeName: 'disk',
      vendor: 'IET',
    });
    expect(inquiryView(hex(TGT.vpd00), 0x00)).toMatchObject({
      kind: 'vpd',
      page: '00',
      supportedPages: [
        { page: '00', name: 'supported VPD pages' },
        { page: '80', name: 'unit serial number' },
        { page: '83', name: 'device identification' },
        { page: 'b0', name: 'block limits' },
        { page: 'b1', name: 'block device characteristics' },
        { page: 'b2', name: 'logical block provisioning' },
      ],
    });
    expect(inquiryView(hex(TGT.vpd80), 0x80)).toMatchObject({ serial: 'beaf11' });
    expect(inquiryView(hex(TGT.vpdB1), 0xb1)).toMatchObject({ mediumRotationRate: 0 });
  });

  it('the view of a page without a decoder has its bytes', () => {
    expect(inquiryView(hex('00c00002abcd'), 0xc0)).toEqual({
      kind: 'vpd',
      page: 'c0',
      name: 'vendor specific',
      hex: 'abcd',
    });
  });
});
