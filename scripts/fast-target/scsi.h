// SCSI of a RAM disk: as much of SPC and SBC as initiators ask for before they read and write.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { BLOCK_BYTES = 512, TRANSFER_BYTES_MAX = 8 << 20, PAGE_BYTES_MAX = 512, CACHING_PAGE_BYTES = 20 };

typedef struct {
  uint8_t *memory;
  uint64_t bytes;
  int luns;
  bool write_cache;  // WCE=1: it reports a volatile cache, which RAM is anyway
} Disk;

typedef enum { SCSI_STATUS, SCSI_PAGE, SCSI_READ, SCSI_WRITE } ScsiKind;

// What a CDB wants: only a status, a page of parameter data, or bytes of the disk.
typedef struct {
  ScsiKind kind;
  uint8_t status;  // 0, or 2 with the sense below
  uint8_t sense_key, asc;
  uint32_t length;  // of the page, or bytes of the disk
  uint64_t offset;
  uint8_t page[PAGE_BYTES_MAX];
} ScsiAnswer;

void scsi_answer(const Disk *disk, uint64_t lun, const uint8_t *cdb, ScsiAnswer *answer);
