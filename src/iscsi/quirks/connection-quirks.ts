import { ISCSI_PORT, strict, tolerate, wait } from './quirk-row.js';

const DAMAGE =
  'Something between here and the target damages data: check network cards and their offloads, ' +
  'cables, switches and memory.';

const MIXED =
  'A target that sends responses out of order may also mix their bytes (istgt with QueueDepth 0 ' +
  'does) and gets one command at a time: set its QueueDepth to 32, and use digests.';

/** The full feature phase: numbers, data transfer, responses. */
export const CONNECTION_QUIRKS = {
  'header-digest': strict('7.8', 'the header decides how the stream is cut', DAMAGE),
  'data-digest': strict('7.8', 'the data is damaged', DAMAGE),
  'segment-size': strict('13.12', 'it bounds the memory a PDU takes', ISCSI_PORT),
  opcode: strict('11.2.1.2', 'the stream may be cut in the wrong place', ISCSI_PORT),
  'statsn-gap': wait('7.9', 'a response that is sent late may still come', MIXED),
  'statsn-reused': tolerate('7.9', 'the task tag says which command is answered'),
  'nop-in-flood': strict('11.18', 'it bounds the memory that answers take'),
  'nop-in-tags': tolerate('11.19', 'the task tag says that it answers our ping'),
  'logout-unasked': strict('11.15', 'the target has ended the connection'),
  'logout-tag': tolerate('4.2.5.3', 'there is one logout request, and the connection ends'),
  'logout-response': strict('11.15.1', 'the session may still be at work there'),
  'logout-rejected': strict('11.17.1', 'the session may still be at work there'),
  'async-termination': tolerate('11.9.1', 'every task has a time of its own'),
  'reject-size': strict('11.17.4', 'it is unknown which request was rejected'),
  'reject-negotiation': strict('11.17.1', 'it is unknown which values are in force'),
  'check-condition-sense': tolerate('7.7', 'the command is tried again, and fails in the end'),
  'data-in-missing': strict('7.9', 'data is missing'),
  'exp-data-sn': tolerate('11.4.8', 'the byte count proves that all the data is there'),
  'residual-both': tolerate('11.4.1', 'a read is counted byte by byte, a write is done again'),
  r2t: strict('11.8', 'it decides which bytes go where'),
  'r2t-burst': tolerate('13.13', 'the length of the command bounds it'),
  'r2t-number': tolerate('11.8.2', 'the offset proves the order'),
  'r2t-lun': tolerate('4.2.5.3', 'the task tag says which write it is; the field is zero'),
  'data-in': strict('11.7', 'it decides which bytes go where'),
  'data-in-number': tolerate('11.7.5', 'there is no data in the PDU'),
  'data-in-final': tolerate('11.7.3', 'the status ends the command'),
  'data-in-status': tolerate('11.7.3', 'it counts as a status without sense data'),
};
