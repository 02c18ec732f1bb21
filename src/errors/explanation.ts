/** One meaning of a code, as `explain` shows it. */
export type Explanation = {
  readonly kind: 'exitCode' | 'loginStatus' | 'sense' | 'errno' | 'accessState';
  readonly code: string;
  readonly name: string;
  /** The part between a program and its disk that reports the code. */
  readonly layer: string;
  readonly explanation: string;
  readonly nextStep: string;
  /** The document that defines it. */
  readonly reference: string;
};
