/**
 * What is done when a target breaks a rule of RFC 7143:
 *
 * - `strict`: the connection ends, because the rule decides which bytes go where, whether a write
 *   is done, who the peer or the disk is, how the stream is cut, or how much memory a peer takes;
 * - `tolerate`: the session continues with the more cautious of what was offered and answered;
 * - `wait`: what is missing may still come, so it gets a short time first;
 * - `fallback`: there is another legal way to ask, which is tried once and kept for the session.
 */
export type QuirkClass = 'strict' | 'tolerate' | 'wait' | 'fallback';

export type QuirkRow<Class extends QuirkClass = QuirkClass> = {
  readonly class: Class;
  /** Section of RFC 7143. */
  readonly section: string;
  /** Why the class is this one. */
  readonly reason: string;
  /** What the operator can do, a whole sentence. */
  readonly nextStep: string;
};

export const ISCSI_PORT =
  'Check that the address and port are those of an iSCSI target, and not of another service.';
export const VENDOR =
  "No option of this side avoids it: look at the target's log, and report this message to its " +
  'vendor.';
const NOTHING = 'Nothing has to be done: the session works as with any other target.';
const REMEMBERED =
  'Nothing has to be done: the other way is used for as long as the session lives.';

export const strict = (section: string, reason: string, nextStep = VENDOR): QuirkRow<'strict'> => ({
  class: 'strict',
  section,
  reason,
  nextStep,
});

export const tolerate = (
  section: string,
  reason: string,
  nextStep = NOTHING,
): QuirkRow<'tolerate'> => ({ class: 'tolerate', section, reason, nextStep });

export const wait = (section: string, reason: string, nextStep = NOTHING): QuirkRow<'wait'> => ({
  class: 'wait',
  section,
  reason,
  nextStep,
});

export const fallback = (
  section: string,
  reason: string,
  nextStep = REMEMBERED,
): QuirkRow<'fallback'> => ({ class: 'fallback', section, reason, nextStep });
