import { serialAdd, serialDistance, serialLess } from '../../base/serial32.js';

/**
 * Command numbering of one session: CmdSN, ExpCmdSN and MaxCmdSN
 * (RFC 7143 §4.2.2.1 (Command Numbering and Acknowledging)).
 */
export class CommandWindow {
  /** Number of the next non-immediate request. */
  cmdSN: number;
  expCmdSN: number;
  maxCmdSN: number;

  /** Closed, until the target opens it with the numbers of its last Login Response. */
  constructor(firstCmdSN: number) {
    this.cmdSN = firstCmdSN;
    this.expCmdSN = firstCmdSN;
    this.maxCmdSN = serialAdd(firstCmdSN, -1);
  }

  /** True when a non-immediate request may be sent now. */
  get isOpen(): boolean {
    return !serialLess(this.maxCmdSN, this.cmdSN);
  }

  /** Non-immediate requests that the target takes now. */
  get room(): number {
    return Math.max(0, serialDistance(this.cmdSN, this.maxCmdSN) + 1);
  }

  /** The number for a request sent now; the caller has seen `isOpen`. */
  take(): number {
    const taken = this.cmdSN;
    this.cmdSN = serialAdd(taken, 1);
    return taken;
  }

  /** Notes the two numbers of a target PDU; a pair that contradicts itself or is old is ignored. */
  update(expCmdSN: number, maxCmdSN: number): void {
    if (serialLess(maxCmdSN, serialAdd(expCmdSN, -1))) return;
    if (serialLess(this.maxCmdSN, maxCmdSN)) this.maxCmdSN = maxCmdSN;
    // A number beyond what was ever sent acknowledges nothing.
    if (serialLess(this.expCmdSN, expCmdSN) && !serialLess(this.cmdSN, expCmdSN)) {
      this.expCmdSN = expCmdSN;
    }
  }
}
