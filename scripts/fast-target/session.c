#include "session.h"

#include <stdio.h>
#include <stdlib.h>

#include "bytes.h"

enum { BHS = 48, WINDOW = 255 };

Session *session_new(const Disk *disk) {
  Session *session = calloc(1, sizeof(Session));
  session->disk = disk;
  session->in = malloc(IN_BYTES);
  session->headers = malloc(HEADERS_BYTES);
  session->segment_max = 8192;
  session->burst_max = 262144;
  session->first_burst = 65536;
  session->stat_sn = 1;
  return session;
}

void session_free(Session *session) {
  free(session->in);
  free(session->headers);
  free(session);
}

static void piece(Session *session, const void *data, uint32_t length) {
  if (length == 0) return;
  struct iovec *last = session->pieces + session->pieces_used - 1;
  if (session->pieces_used > session->piece && (uint8_t *)last->iov_base + last->iov_len == data) {
    last->iov_len += length;
    return;
  }
  session->pieces[session->pieces_used++] =
      (struct iovec){.iov_base = (void *)data, .iov_len = length};
}

// Digests begin with the full feature phase.
static uint32_t header_digest_bytes(const Session *session) {
  return session->full_feature && session->header_digest ? 4 : 0;
}

static uint32_t data_digest_bytes(const Session *session) {
  return session->full_feature && session->data_digest ? 4 : 0;
}

static uint8_t *take(Session *session, uint32_t length) {
  uint8_t *at = session->headers + session->headers_used;
  session->headers_used += length;
  memset(at, 0, length);
  return at;
}

uint8_t *pdu_begin(Session *session, uint8_t opcode) {
  uint8_t *header = take(session, BHS + header_digest_bytes(session));
  header[0] = opcode;
  header[1] = 0x80;
  memset(header + 16, 0xff, 8);
  return header;
}

static void digest_of(const void *data, uint32_t length, uint8_t *out) {
  const uint32_t crc = crc32c(data, length);
  memcpy(out, &crc, 4);
}

// Data must be in the disk, or is copied.
void pdu_send(Session *session, uint8_t *header, const void *data, uint32_t length) {
  put32(header + 4, length);
  const uint32_t digest = header_digest_bytes(session);
  if (digest > 0) digest_of(header, BHS, header + BHS);
  piece(session, header, BHS + digest);
  if (length == 0) return;
  const uint8_t *bytes = data;
  const Disk *disk = session->disk;
  const uint32_t padded = (length + 3) & ~3u;
  if (bytes < disk->memory || bytes >= disk->memory + disk->bytes) {
    uint8_t *copy = take(session, padded);
    memcpy(copy, bytes, length);
    bytes = copy;
  }
  piece(session, bytes, padded);
  if (data_digest_bytes(session) > 0) {
    uint8_t *trailer = take(session, 4);
    digest_of(bytes, padded, trailer);
    piece(session, trailer, 4);
  }
}

static void numbers(Session *session, uint8_t *out, bool status) {
  put32(out + 24, status ? session->stat_sn++ : session->stat_sn);
  put32(out + 28, session->exp_cmd_sn);
  put32(out + 32, session->exp_cmd_sn + WINDOW);
}

static void send_status(Session *session, uint32_t tag, const ScsiAnswer *answer, uint32_t residual) {
  uint8_t *out = pdu_begin(session, 0x21);
  uint8_t sense[20] = {0, 18, 0x70};
  out[1] = residual > 0 ? 0x82 : 0x80;
  out[3] = answer->status;
  put32(out + 16, tag);
  memset(out + 20, 0, 4);
  numbers(session, out, true);
  put32(out + 44, residual);
  sense[4] = answer->sense_key;
  sense[9] = 10;
  sense[14] = answer->asc;
  pdu_send(session, out, sense, answer->status == 0 ? 0 : sizeof(sense));
}

// Data-In PDUs of at most the initiator's segment; the last one carries the status.
static void send_data(Session *session, uint32_t tag, const uint8_t *data, uint32_t length,
                      uint32_t expected) {
  uint32_t data_sn = 0, at = 0;
  if (length > expected) length = expected;
  do {
    const uint32_t left = length - at;
    const uint32_t size = left < session->segment_max ? left : session->segment_max;
    const bool last = at + size == length;
    uint8_t *out = pdu_begin(session, 0x25);
    out[1] = last ? (length < expected ? 0x83 : 0x81) : 0x00;
    put32(out + 16, tag);
    numbers(session, out, last);
    if (!last) put32(out + 24, 0);
    put32(out + 36, data_sn++);
    put32(out + 40, at);
    put32(out + 44, last ? expected - length : 0);
    pdu_send(session, out, data + at, size);
    at += size;
  } while (at < length);
}

static void ask(Session *session, Write *write) {
  const uint32_t left = write->length - write->received;
  const uint32_t size = left < session->burst_max ? left : session->burst_max;
  uint8_t *out = pdu_begin(session, 0x31);
  memcpy(out + 8, write->lun, 8);
  put32(out + 16, write->tag);
  put32(out + 20, write->tag & 0x7fffffff);
  numbers(session, out, false);
  put32(out + 36, write->r2t_count++);
  put32(out + 40, write->received);
  put32(out + 44, size);
  write->burst_end = write->received + size;
  pdu_send(session, out, NULL, 0);
}

// The data of a write continues; `final` is the end of a sequence.
static bool write_data(Session *session, Write *write, const uint8_t *data, uint32_t length,
                       bool final) {
  if (length > write->length - write->received) return false;
  memcpy(session->disk->memory + write->offset + write->received, data, length);
  write->received += length;
  if (write->received == write->length) {
    const ScsiAnswer good = {.status = 0};
    write->live = false;
    send_status(session, write->tag, &good, 0);
  } else if (final) {
    ask(session, write);
  }
  return true;
}

static bool command(Session *session, const uint8_t *header, const uint8_t *data, uint32_t length) {
  static ScsiAnswer answer;
  const uint32_t tag = get32(header + 16);
  const uint32_t expected = get32(header + 20);
  if ((header[0] & 0x40) == 0) session->exp_cmd_sn = get32(header + 24) + 1;
  scsi_answer(session->disk, header[9], header + 32, &answer);
  switch (answer.kind) {
    case SCSI_READ:
      if ((header[1] & 0x40) == 0) return false;
      send_data(session, tag, session->disk->memory + answer.offset, answer.length, expected);
      return true;
    case SCSI_PAGE:
      send_data(session, tag, answer.page, answer.length, expected);
      return true;
    case SCSI_WRITE: {
      Write *write = session->writes + tag % TASKS;
      if (write->live || (header[1] & 0x20) == 0 || expected != answer.length) return false;
      *write = (Write){.live = true, .tag = tag, .offset = answer.offset, .length = expected};
      memcpy(write->lun, header + 8, 8);
      return write_data(session, write, data, length, (header[1] & 0x80) != 0);
    }
    default:
      send_status(session, tag, &answer, expected);
      return true;
  }
}

static bool data_out(Session *session, const uint8_t *header, const uint8_t *data,
                     uint32_t length) {
  const uint32_t tag = get32(header + 16);
  Write *write = session->writes + tag % TASKS;
  if (!write->live || write->tag != tag || get32(header + 40) != write->received) return false;
  return write_data(session, write, data, length, (header[1] & 0x80) != 0);
}

static bool received(Session *session, const uint8_t *header, uint8_t *data, uint32_t length) {
  const uint8_t opcode = header[0] & 0x3f;
  if (opcode == 0x03) return login_received(session, header, (char *)data, length);
  if (!session->full_feature) return false;
  if (opcode == 0x01) return command(session, header, data, length);
  if (opcode == 0x05) return data_out(session, header, data, length);
  uint8_t *out;
  switch (opcode) {
    case 0x00:  // NOP-Out
      if (get32(header + 16) == 0xffffffff) return true;
      out = pdu_begin(session, 0x20);
      break;
    case 0x02: out = pdu_begin(session, 0x22); break;
    case 0x06:
      out = pdu_begin(session, 0x26);
      session->over = true;
      break;
    default: return false;
  }
  if ((header[0] & 0x40) == 0) session->exp_cmd_sn = get32(header + 24) + 1;
  memcpy(out + 16, header + 16, 4);
  if (opcode != 0x00) memset(out + 20, 0, 4);
  numbers(session, out, true);
  pdu_send(session, out, data, opcode == 0x00 ? length : 0);
  return true;
}

bool session_advance(Session *session) {
  // One command adds at most a header a segment of 512 bytes; the rest waits for the socket.
  while (session->pieces_used < PIECES_MAX / 2 && session->headers_used < HEADERS_BYTES / 2) {
    uint8_t *header = session->in + session->used;
    const uint32_t available = session->filled - session->used;
    if (available < BHS) break;
    const uint32_t covered = BHS + header[4] * 4u;
    const uint32_t at = covered + header_digest_bytes(session);
    const uint32_t length = get32(header + 4) & 0xffffff;
    const uint32_t padded = (length + 3) & ~3u;
    const uint32_t data_digest = length > 0 ? data_digest_bytes(session) : 0;
    const uint32_t total = at + padded + data_digest;
    uint8_t crc[4];
    if (length > SEGMENT_BYTES_MAX) return false;
    if (available < total) break;
    if (at > covered) {
      digest_of(header, covered, crc);
      if (memcmp(crc, header + covered, 4) != 0) return false;
    }
    if (data_digest > 0) {
      digest_of(header + at, padded, crc);
      if (memcmp(crc, header + at + padded, 4) != 0) return false;
    }
    session->used += total;
    if (!received(session, header, header + at, length)) return false;
  }
  return true;
}
