// The formulas of the mock API: every record follows from its ids alone, so tests can recompute it.
import { createHash } from "node:crypto";

export const PAGED_TYPES = ["assessments", "conditions", "medications", "vital_signs"] as const;
export type PagedType = (typeof PAGED_TYPES)[number];

/** Fewest and most pages a patient has of a type. */
const PAGE_RANGES: Record<PagedType, [min: number, max: number]> = {
  assessments: [2, 4],
  conditions: [1, 3],
  medications: [2, 3],
  vital_signs: [1, 1],
};

/** The MD5 digest of a text as one integer of 128 bits. */
export function md5n(text: string): bigint {
  return BigInt(`0x${createHash("md5").update(text).digest("hex")}`);
}

/** `(md5n(text) + offset) % modulus` as a number. */
export function seeded(text: string, modulus: number, offset = 0): number {
  return Number((md5n(text) + BigInt(offset)) % BigInt(modulus));
}

export function isPagedType(type: string): type is PagedType {
  return (PAGED_TYPES as readonly string[]).includes(type);
}

export function pagesOf(patientId: string | number, type: PagedType): number {
  const [min, max] = PAGE_RANGES[type];
  return min + seeded(`${patientId}:${type}`, max - min + 1);
}

/** One record of a patient's page; `index` counts within the page. */
export function patientRecord(
  patientId: string | number,
  type: PagedType,
  page: number,
  index: number,
): Record<string, unknown> {
  const seed = md5n(`${patientId}:${type}:${page}`) + BigInt(index);
  const record = {
    id: `${type.slice(0, 4).toUpperCase()}-${patientId}-p${page}-i${index}`,
    patientId: String(patientId),
    dataType: type,
    value: Number(seed % 100n),
  };
  if (type !== "assessments") return record;
  const mdsCount = 5 + Number(seed % 6n);
  const mdsAssessmentIds = Array.from(
    { length: mdsCount },
    (_, at) => `MDS-${patientId}-p${page}-${index}-${padded(at + 1, 2)}`,
  );
  return { ...record, mdsCount, mdsAssessmentIds };
}

export function demographics(patientId: string | number): Record<string, unknown> {
  const seed = md5n(`${patientId}:demographics`);
  const month = padded(1 + Number(seed % 12n), 2);
  const day = padded(1 + Number((seed >> 4n) % 28n), 2);
  return {
    patientId: String(patientId),
    firstName: `First${seed % 1000n}`,
    lastName: `Last${(seed >> 8n) % 1000n}`,
    dob: `19${50 + Number(seed % 50n)}-${month}-${day}`,
    gender: seed % 2n === 0n ? "M" : "F",
    status: "active",
  };
}

export function mdsIdsOf(patientId: string): string[] {
  const count = 2 + seeded(`${patientId}:mds`, 4);
  return Array.from({ length: count }, (_, at) => `MDS-${patientId}-${padded(at + 1, 3)}`);
}

export function mdsDetail(assessmentId: string): Record<string, unknown> {
  const sections = [1, 2, 3].map(section => ({
    sectionId: `S${section}`,
    questions: [1, 2, 3].map(question => ({
      key: `B${section}0${question}`,
      responses: [{ responseValue: String(seeded(assessmentId, 5, section * 10 + question)) }],
    })),
  }));
  return { assessmentId, status: "completed", sections };
}

export function padded(number: number, width: number): string {
  return String(number).padStart(width, "0");
}

/** Text of so many KB, the same for the same seed. */
export function filler(kilobytes: number, seed: string): string {
  const block = createHash("sha512").update(seed).digest("base64");
  return block.repeat(Math.ceil((kilobytes * 1024) / block.length)).slice(0, kilobytes * 1024);
}
