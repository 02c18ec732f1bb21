/** SCSI status codes (SAM-5 §5.3.1). */
export const ScsiStatus = {
  good: 0x00,
  checkCondition: 0x02,
  conditionMet: 0x04,
  busy: 0x08,
  reservationConflict: 0x18,
  taskSetFull: 0x28,
  acaActive: 0x30,
  taskAborted: 0x40,
} as const;

const STATUS_NAMES: ReadonlyMap<number, string> = new Map([
  [0x00, 'GOOD'],
  [0x02, 'CHECK CONDITION'],
  [0x04, 'CONDITION MET'],
  [0x08, 'BUSY'],
  [0x18, 'RESERVATION CONFLICT'],
  [0x28, 'TASK SET FULL'],
  [0x30, 'ACA ACTIVE'],
  [0x40, 'TASK ABORTED'],
]);

/** The standard's name of a status byte, or `status 22h`. */
export function statusName(status: number): string {
  const hex = status.toString(16).toUpperCase().padStart(2, '0');
  return STATUS_NAMES.get(status) ?? `status ${hex}h`;
}
