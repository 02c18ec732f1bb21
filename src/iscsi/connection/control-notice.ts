import { ResponseOpcode } from '../pdu/pdu.js';
import { decodeTextResponse, type ResponseHeader } from '../pdu/pdu-response.js';
import { brokenRule } from '../quirks/quirks.js';
import { decodeAsyncMessage } from './async-message.js';
import type { ConnectionNotice } from './connection-notice.js';

/**
 * What a session learns of a PDU that concerns no task of the connection. Throws ProtocolError for
 * an opcode that no target has.
 */
export function controlNotice(
  header: ResponseHeader,
  data: Buffer,
): Extract<
  ConnectionNotice,
  { type: 'textReceived' | 'taskManagementAnswered' | 'asyncReceived' }
> {
  const { opcode, initiatorTaskTag, response } = header;
  switch (opcode) {
    case ResponseOpcode.text:
      return { type: 'textReceived', response: decodeTextResponse(header, Buffer.from(data)) };
    case ResponseOpcode.taskManagement:
      return { type: 'taskManagementAnswered', initiatorTaskTag, response };
    case ResponseOpcode.async:
      return { type: 'asyncReceived', message: decodeAsyncMessage(header, data) };
    default:
      throw brokenRule('opcode', `opcode 0x${opcode.toString(16)} from a target`);
  }
}
