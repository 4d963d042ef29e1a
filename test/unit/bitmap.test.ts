/** A set of small integers whose copies share their pages until one of them changes. */
import { strict as assert } from "node:assert";
import { Bitmap } from "../../schemas/bitmap.ts";
import { randomOf } from "../support/random-flows.ts";

/** Sizes around a byte and a page of 8,192. */
const SIZES = [1, 7, 8, 9, 8_191, 8_192, 8_193, 20_000];

function members(set: Bitmap, size: number): number[] {
  return Array.from({ length: size }, (_, index) => index).filter(index => set.has(index));
}

describe("a bitmap", () => {
  it("is the set of what was added, also as text, at any size", () => {
    for (const size of SIZES) {
      const random = randomOf(size);
      const set = Bitmap.ofSize(size);
      const expected = new Set<number>();
      for (let count = 0; count < 300; count += 1) {
        const index = Math.floor(random() * size);
        set.add(index);
        expected.add(index);
      }
      const sorted = [...expected].sort((one, other) => one - other);
      assert.deepEqual(members(set, size), sorted, `of ${size}`);
      const again = Bitmap.fromText(set.toText());
      assert.deepEqual(members(again, size), sorted, `as text, of ${size}`);
      assert.equal(again.toText(), set.toText());
      assert.equal(Buffer.from(set.toText(), "base64").length, Math.ceil(size / 8));
    }
  });

  it("knows nothing outside its size", () => {
    const set = Bitmap.ofSize(10);
    for (const index of [-1, 16, 9_000]) {
      set.add(index);
      assert.equal(set.has(index), false, String(index));
    }
  });

  it("and its copies change apart from each other, copied from either side", () => {
    const random = randomOf(7);
    const sets: { set: Bitmap; expected: Set<number> }[] = [
      { set: Bitmap.ofSize(30_000), expected: new Set() },
    ];
    for (let turn = 0; turn < 400; turn += 1) {
      const one = sets[Math.floor(random() * sets.length)]!;
      if (random() < 0.1 && sets.length < 12) {
        sets.push({ set: one.set.copy(), expected: new Set(one.expected) });
      }
      const index = Math.floor(random() * 30_000);
      one.set.add(index);
      one.expected.add(index);
    }
    for (const { set, expected } of sets) {
      const sorted = [...expected].sort((a, b) => a - b);
      assert.deepEqual(members(set, 30_000), sorted);
    }
  });

  it("loses what is taken out, counts its members, and finds what it lacks", () => {
    const [one, other] = [Bitmap.ofSize(20_000), Bitmap.ofSize(20_000)];
    for (let index = 0; index < 9_000; index += 1) (index % 2 === 0 ? one : other).add(index);
    const before = one.copy();
    assert.deepEqual([one.count(), other.count()], [4_500, 4_500]);
    assert.equal(Bitmap.firstFree(one, other, 0), 9_000);
    one.delete(8_200);
    one.delete(15_000);
    assert.deepEqual([one.has(8_200), one.count(), before.count()], [false, 4_499, 4_500]);
    assert.equal(Bitmap.firstFree(one, other, 17), 8_200);
    assert.equal(Bitmap.firstFree(one, other, 8_201), 9_000);
    assert.equal(Bitmap.firstFree(Bitmap.ofSize(8), Bitmap.ofSize(8), 9), 8);
  });

  it("takes what another one has", () => {
    const [one, other] = [Bitmap.ofSize(20_000), Bitmap.ofSize(20_000)];
    for (const index of [3, 9_000]) one.add(index);
    for (const index of [4, 9_001, 19_999]) other.add(index);
    one.join(other);
    assert.deepEqual(members(one, 20_000), [3, 4, 9_000, 9_001, 19_999]);
    assert.deepEqual(members(other, 20_000), [4, 9_001, 19_999]);
  });
});
