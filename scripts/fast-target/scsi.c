#include "scsi.h"

#include <stdio.h>

#include "bytes.h"

static void fail(ScsiAnswer *answer, uint8_t sense_key, uint8_t asc) {
  answer->kind = SCSI_STATUS;
  answer->status = 2;
  answer->sense_key = sense_key;
  answer->asc = asc;
}

static void page(ScsiAnswer *answer, uint32_t length, uint32_t allocation) {
  answer->kind = SCSI_PAGE;
  answer->length = length < allocation ? length : allocation;
}

static void inquiry(uint64_t lun, const uint8_t *cdb, ScsiAnswer *answer) {
  uint8_t *out = answer->page;
  const uint32_t allocation = (uint32_t)cdb[3] << 8 | cdb[4];
  uint32_t length = 0;
  if ((cdb[1] & 1) == 0) {
    out[2] = 6;
    out[3] = 2;
    out[4] = 31;
    out[7] = 2;
    memcpy(out + 8, "BENCH   FAST RAM DISK   1   ", 28);
    page(answer, 36, allocation);
    return;
  }
  out[1] = cdb[2];
  switch (cdb[2]) {
    case 0x00:
      memcpy(out + 4, "\x00\x80\x83\xb0\xb1", 5);
      length = 5;
      break;
    case 0x80:
      length = (uint32_t)sprintf((char *)out + 4, "fast%04u", (unsigned)lun);
      break;
    case 0x83:
      out[4] = 2;  // ASCII
      out[5] = 1;  // T10 vendor ID
      out[7] = (uint8_t)sprintf((char *)out + 8, "BENCH   fast%04u", (unsigned)lun);
      length = 4u + out[7];
      break;
    case 0xb0:
      put32(out + 8, TRANSFER_BYTES_MAX / BLOCK_BYTES);
      length = 60;
      break;
    case 0xb1:
      put16(out + 4, 1);  // not rotating
      length = 60;
      break;
    default:
      fail(answer, 5, 0x24);
      return;
  }
  put16(out + 2, (uint16_t)length);
  page(answer, length + 4, allocation);
}

static void transfer(const Disk *disk, ScsiAnswer *answer, bool write, uint64_t lba, uint64_t count) {
  const uint64_t blocks = disk->bytes / BLOCK_BYTES;
  if (lba > blocks || count > blocks - lba) return fail(answer, 5, 0x21);
  if (count > TRANSFER_BYTES_MAX / BLOCK_BYTES) return fail(answer, 5, 0x24);
  answer->kind = count == 0 ? SCSI_STATUS : write ? SCSI_WRITE : SCSI_READ;
  answer->offset = lba * BLOCK_BYTES;
  answer->length = (uint32_t)(count * BLOCK_BYTES);
}

static void report_luns(const Disk *disk, const uint8_t *cdb, ScsiAnswer *answer) {
  put32(answer->page, (uint32_t)disk->luns * 8);
  for (int lun = 0; lun < disk->luns; lun += 1) answer->page[8 + lun * 8 + 1] = (uint8_t)lun;
  page(answer, 8 + (uint32_t)disk->luns * 8, get32(cdb + 6));
}

static void capacity(const Disk *disk, const uint8_t *cdb, ScsiAnswer *answer) {
  const uint64_t last = disk->bytes / BLOCK_BYTES - 1;
  if (cdb[0] == 0x25) {
    put32(answer->page, last > 0xffffffff ? 0xffffffff : (uint32_t)last);
    put32(answer->page + 4, BLOCK_BYTES);
    page(answer, 8, 8);
    return;
  }
  put64(answer->page, last);
  put32(answer->page + 8, BLOCK_BYTES);
  page(answer, 32, get32(cdb + 10));
}

static void mode_sense(const Disk *disk, const uint8_t *cdb, ScsiAnswer *answer) {
  // No write protection, DPO and FUA supported; a caching page (SBC-3 §6.4.5) only with WCE=1.
  const bool six = cdb[0] == 0x1a;
  const int header = six ? 4 : 8;
  const int bytes = header + (disk->write_cache ? CACHING_PAGE_BYTES : 0);
  uint8_t *out = answer->page;
  out[six ? 0 : 1] = (uint8_t)(bytes - (six ? 1 : 2));
  out[six ? 2 : 3] = 0x10;
  if (disk->write_cache) {
    out[header] = 0x08;
    out[header + 1] = CACHING_PAGE_BYTES - 2;
    out[header + 2] = 0x04;
  }
  page(answer, (uint32_t)bytes, six ? cdb[4] : (uint32_t)cdb[7] << 8 | cdb[8]);
}

void scsi_answer(const Disk *disk, uint64_t lun, const uint8_t *cdb, ScsiAnswer *answer) {
  answer->kind = SCSI_STATUS;
  answer->status = 0;
  answer->length = 0;
  switch (cdb[0]) {  // the hot ones first: they leave the page as it is
    case 0x28:
    case 0x2a:
      transfer(disk, answer, cdb[0] == 0x2a, get32(cdb + 2), (uint32_t)cdb[7] << 8 | cdb[8]);
      return;
    case 0x88:
    case 0x8a:
      transfer(disk, answer, cdb[0] == 0x8a, get64(cdb + 2), get32(cdb + 10));
      return;
    default:
      break;
  }
  memset(answer->page, 0, sizeof(answer->page));
  switch (cdb[0]) {
    case 0x12: inquiry(lun, cdb, answer); return;
    case 0x1a:
    case 0x5a: mode_sense(disk, cdb, answer); return;
    case 0x25: capacity(disk, cdb, answer); return;
    case 0x9e:
      if ((cdb[1] & 0x1f) == 0x10) capacity(disk, cdb, answer);
      else fail(answer, 5, 0x20);
      return;
    case 0xa0: report_luns(disk, cdb, answer); return;
    case 0x00:  // TEST UNIT READY
    case 0x1b:  // START STOP UNIT
    case 0x1e:  // PREVENT ALLOW MEDIUM REMOVAL
    case 0x35:  // SYNCHRONIZE CACHE(10) and (16): RAM is as stable as it gets
    case 0x91: return;
    default: fail(answer, 5, 0x20);
  }
}
