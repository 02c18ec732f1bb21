/** One meaning of a code, as `explain` shows it. */
export type Explanation = {
  readonly kind: 'exitCode' | 'loginStatus' | 'sense' | 'errno' | 'accessState';
  readonly code: string;
  readonly name: string;
  /** Which part of the way between a program and its disk speaks so. */
  readonly layer: string;
  readonly explanation: string;
  readonly nextStep: string;
  /** Where it is laid down. */
  readonly reference: string;
};
