export class CopySpy {
  readonly bytes: number;
  restore(): void;
}
