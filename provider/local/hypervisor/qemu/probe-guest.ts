/** The probe guest of probe-guest.S, assembled. */

/** What it prints, endlessly, on the first serial port. */
export const probeText = "palisade-probe";

const code =
  "+jHAjtiOwI7QvAB8Zr8AEAAADyLfZjHAuQAMZvOrZscGABADIAAAZscGACADMAAAZscGADCDAAAADyDgZoPIIA8i4Ga5gAAAwA8yZg0AAQAADzAPARawfA8gwGYNAQAAgA8iwOppfAgAZrr7A7AD7r6KfAAAZrr9A+yoIHT7rITAdO1muvgD7uvrcGFsaXNhZGUtcHJvYmUKAGYPH0QAAAAAAAAAAAAAAAAAAACaIAAPAKB8AAAAAAAAAAAAAAAA";

/** A bootable disk of 1 MiB. */
export function probeDisk(): Buffer {
  const disk = Buffer.alloc(1024 * 1024);
  Buffer.from(code, "base64").copy(disk);
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}
