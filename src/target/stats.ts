/** What the target has seen; tests read it. */
export class TargetStats {
  connections = 0;
  logins = 0;
  discoveryLogins = 0;
  loginsRefused = 0;
  reinstatements = 0;
  logouts = 0;
  discoveryLogouts = 0;
  /** Reason codes of RFC 7143 §11.14.1 (Reason Code), in order of arrival; not of discoveries. */
  readonly logoutReasons: number[] = [];
  currentSessions = 0;
  /** Commands delivered, by operation code. */
  readonly commands = new Map<number, number>();
  flushes = 0;
  fuaWrites = 0;
  unmapBytes = 0;
  writeSameBytes = 0;
  nopOuts = 0;
  nopAnswers = 0;
  r2ts = 0;
  unsolicitedDataOuts = 0;
  immediateDataBytes = 0;
  strayDataOuts = 0;
  ignoredByWindow = 0;
  headerDigestErrors = 0;
  dataDigestErrors = 0;
  snacks = 0;
  /** Function codes of RFC 7143 §11.5.1 (Function), in order of arrival. */
  readonly taskManagement: number[] = [];
  /** Tasks ended by reinstatement, task management or a lost link before they answered. */
  tasksKilled = 0;
  /** What the initiator did against the RFC, in words, each once; bounded. */
  readonly violations: string[] = [];

  commandCount(opcode: number): number {
    return this.commands.get(opcode) ?? 0;
  }

  countCommand(opcode: number): number {
    const count = this.commandCount(opcode) + 1;
    this.commands.set(opcode, count);
    return count;
  }

  violation(text: string): void {
    if (this.violations.length >= VIOLATIONS_MAX || this.violations.includes(text)) return;
    this.violations.push(text);
  }
}

const VIOLATIONS_MAX = 100;
