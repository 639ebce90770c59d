/** How long a slide takes, and in which lectures it is shown: those of 45, 80 or 120 minutes, or only longer ones. */

/** @typedef {import("./deck.mjs").Slide} Slide */

export const plans = [45, 80, 120];

/**
 * @param {Slide} slide
 * @returns {number | undefined} what its notes say: "Time: 1.5 minutes."
 */
export function minutesOf({ notes }) {
  const time = notes.map(({ content }) => /\bTime: (\d+(?:\.\d+)?) minutes?\b/.exec(content)?.[1]).find(Boolean);
  return time === undefined ? undefined : Number(time);
}

/**
 * @param {Slide} slide
 * @returns {number} the minutes of the shortest plan that shows it: data-plan="80"
 */
export const planOf = ({ attributes }) => Number(attributes["data-plan"] ?? plans[0]);

/**
 * @param {Slide} slide
 * @returns {string | undefined} what is wrong with its data-plan
 */
export function planProblem(slide) {
  const written = slide.attributes["data-plan"];
  if (written === undefined || plans.slice(1).map(String).includes(written)) return undefined;
  return `data-plan="${written}" is no plan: write "80" for what a lecture of 45 minutes leaves out, `
    + '"120" for what one of 80 minutes leaves out, too';
}

/**
 * @param {Slide[]} slides of a deck
 * @returns {number[]} the plans that differ: none where every lecture shows all slides
 */
export function plansOf(slides) {
  const counts = plans.map((plan) => slides.filter((slide) => planOf(slide) <= plan).length);
  const differing = plans.filter((_, i) => counts[i] > (counts[i - 1] ?? 0));
  return differing.length > 1 ? differing : [];
}
