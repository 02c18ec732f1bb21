import { ISCSI_PORT, strict, tolerate, wait } from './quirk-row.js';

const DAMAGE =
  'Something between here and the target damages data: check network cards and their offloads, ' +
  'cables, switches and memory.';

const MIXED =
  'A target that sends responses out of order may also mix their bytes (istgt with QueueDepth 0 ' +
  'does): set its QueueDepth to 32, or queueDepthMax to 1 here, and use digests.';

/** The full feature phase: numbers, data transfer, responses. */
export const CONNECTION_QUIRKS = {
  'header-digest': strict('7.8', 'the header decides how the stream is cut', DAMAGE),
  'data-digest': strict('7.8', 'the data is damaged', DAMAGE),
  'segment-size': strict('13.12', 'it bounds the memory a PDU takes', ISCSI_PORT),
  opcode: strict('11.2.1.2', 'the stream may be cut in the wrong place', ISCSI_PORT),
  'statsn-gap': wait('7.9', 'a response that is sent late may still come', MIXED),
  'statsn-reused': tolerate('7.9', 'the task tag says which command is answered'),
  'nop-in-flood': strict('11.18', 'it bounds the memory that answers take'),
  'nop-in-tags': strict('11.19', 'nobody can say whether it is an answer or a question'),
  'logout-unasked': strict('11.15', 'the target has ended the connection'),
  'logout-tag': strict('4.2.5.3', 'nobody can say which request is answered'),
  'logout-response': strict('11.15.1', 'the session may still be at work there'),
  'logout-rejected': strict('11.17.1', 'the session may still be at work there'),
  'async-termination': strict('11.9.1', 'nobody can say which tasks are over'),
  'reject-size': strict('11.17.4', 'nobody can say which request was rejected'),
  'reject-negotiation': strict('11.17.1', 'nobody can say what holds from now on'),
  'check-condition-sense': strict('7.7', 'nobody can say what went wrong'),
  'data-in-missing': strict('7.9', 'data is missing'),
  'residual-both': strict('11.4.1', 'nobody can say how much was transferred'),
  r2t: strict('11.8', 'it decides which bytes go where'),
  'data-in': strict('11.7', 'it decides which bytes go where'),
};
