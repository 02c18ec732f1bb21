// One iSCSI connection of the fast target, which is also its session.
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "scsi.h"

enum {
  SEGMENT_BYTES_MAX = 262144,  // what we declare as MaxRecvDataSegmentLength
  IN_BYTES = 4 << 20,
  HEADERS_BYTES = 4 << 20,
  PIECES_MAX = 1 << 15,
  TASKS = 4096,
};

// A write whose data is not yet complete.
typedef struct {
  bool live;
  uint32_t tag;
  uint8_t lun[8];
  uint64_t offset;
  uint32_t length, received, burst_end, r2t_count;
} Write;

typedef struct {
  const Disk *disk;
  bool full_feature, over;
  bool header_digest, data_digest;
  uint32_t segment_max, burst_max, first_burst;  // segment_max is the initiator's
  bool said_group, said_segment;
  uint32_t stat_sn, exp_cmd_sn;
  Write writes[TASKS];
  // Received and not yet used: in[used .. filled).
  uint8_t *in;
  uint32_t used, filled;
  // To be sent: headers lie in `headers`, payload in the disk.
  uint8_t *headers;
  uint32_t headers_used;
  struct iovec pieces[PIECES_MAX];
  uint32_t piece, pieces_used;
} Session;

Session *session_new(const Disk *disk);
void session_free(Session *session);
// Takes what has been received; false when the peer broke the protocol.
bool session_advance(Session *session);

// For login.c: a PDU is begun with 48 zero bytes, and queued with its data.
uint8_t *pdu_begin(Session *session, uint8_t opcode);
void pdu_send(Session *session, uint8_t *header, const void *data, uint32_t length);
bool login_received(Session *session, const uint8_t *header, char *text, uint32_t length);
