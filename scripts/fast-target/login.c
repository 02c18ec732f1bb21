// Login without authentication: each key is answered as RFC 7143 §13 says, generously.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "session.h"

typedef struct {
  char text[8192];
  uint32_t length;
} Answer;

static void say(Answer *answer, const char *key, const char *value) {
  const uint32_t room = sizeof(answer->text) - answer->length;
  const int n = snprintf(answer->text + answer->length, room, "%s=%s", key, value);
  if (n > 0 && (uint32_t)n + 1 < room) answer->length += (uint32_t)n + 1;
}

static void say_number(Answer *answer, const char *key, uint32_t value) {
  char digits[16];
  snprintf(digits, sizeof(digits), "%u", value);
  say(answer, key, digits);
}

static uint32_t lower(uint32_t left, uint32_t right) { return left < right ? left : right; }

static bool is(const char *key, const char *name) { return strcmp(key, name) == 0; }

static void digest(Answer *answer, const char *key, const char *offered, bool *on) {
  *on = strncmp(offered, "CRC32C", 6) == 0;
  say(answer, key, *on ? "CRC32C" : "None");
}

static void answer_key(Session *session, Answer *answer, const char *key, const char *value) {
  const uint32_t number = (uint32_t)strtoul(value, NULL, 0);
  if (is(key, "InitiatorName") || is(key, "InitiatorAlias") || is(key, "SessionType") ||
      is(key, "TargetName")) {
    return;
  }
  if (is(key, "AuthMethod")) return say(answer, key, "None");
  if (is(key, "HeaderDigest")) return digest(answer, key, value, &session->header_digest);
  if (is(key, "DataDigest")) return digest(answer, key, value, &session->data_digest);
  if (is(key, "MaxRecvDataSegmentLength")) {
    session->segment_max = lower(number, 1 << 20);
    return;
  }
  // An OR and an AND in which our own wish is the neutral one.
  if (is(key, "InitialR2T") || is(key, "ImmediateData")) return say(answer, key, value);
  if (is(key, "MaxBurstLength")) {
    session->burst_max = lower(number, 1 << 20);
    return say_number(answer, key, session->burst_max);
  }
  if (is(key, "FirstBurstLength")) {
    session->first_burst = lower(number, 1 << 18);
    return say_number(answer, key, session->first_burst);
  }
  if (is(key, "DefaultTime2Wait")) return say(answer, key, value);
  if (is(key, "DefaultTime2Retain") || is(key, "ErrorRecoveryLevel")) return say(answer, key, "0");
  if (is(key, "MaxConnections") || is(key, "MaxOutstandingR2T")) return say(answer, key, "1");
  if (is(key, "DataPDUInOrder") || is(key, "DataSequenceInOrder")) return say(answer, key, "Yes");
  if (is(key, "IFMarker") || is(key, "OFMarker")) return say(answer, key, "No");
  say(answer, key, "NotUnderstood");
}

bool login_received(Session *session, const uint8_t *header, char *text, uint32_t length) {
  const bool transit = (header[1] & 0x80) != 0;
  const uint8_t next = header[1] & 3;
  Answer answer = {.length = 0};
  if (length > 0 && text[length - 1] != 0) return false;
  for (char *key = text; key < text + length;) {
    char *next_key = key + strlen(key) + 1;
    char *equals = strchr(key, '=');
    if (equals == NULL) return false;
    *equals = 0;
    answer_key(session, &answer, key, equals + 1);
    key = next_key;
  }
  if (!session->said_group) say(&answer, "TargetPortalGroupTag", "1");
  session->said_group = true;
  if (((header[1] >> 2) & 3) == 1 && !session->said_segment) {
    say_number(&answer, "MaxRecvDataSegmentLength", SEGMENT_BYTES_MAX);
    session->said_segment = true;
  }
  uint8_t *out = pdu_begin(session, 0x23);
  out[1] = header[1];
  memcpy(out + 8, header + 8, 6);
  if (transit && next == 3) put16(out + 14, 1);
  memcpy(out + 16, header + 16, 4);
  session->exp_cmd_sn = get32(header + 24);
  put32(out + 24, session->stat_sn++);
  put32(out + 28, session->exp_cmd_sn);
  put32(out + 32, session->exp_cmd_sn + 255);
  pdu_send(session, out, answer.text, answer.length);
  session->full_feature = transit && next == 3;
  return true;
}
