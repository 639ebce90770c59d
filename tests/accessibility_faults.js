/** What axe-core holds against the part of the page that `scope` selects: serious faults, and unknown contrast. */
async ([scope, onlyColours]) => {
  // axe-core does not judge text over or under which something lies, though it be empty,
  // nor text whose font is higher than its coloured line, though no letter is.
  const bare = new CSSStyleSheet();
  bare.replaceSync(`.controls, *::before, *::after { display: none !important }
                    .line { padding-block: 2px !important; margin-block: -2px !important }`);
  document.adoptedStyleSheets = [bare];
  const { violations, incomplete } = await axe.run(scope,
    onlyColours ? { runOnly: ["color-contrast", "link-in-text-block"] } : {});
  document.adoptedStyleSheets = [];

  const isText = ({ any: [{ data }], target: [place] }) =>
    !/^(shortTextContent|nonBmp)$/.test(data.messageKey) && !document.querySelector(place).closest("svg");
  const name = (rule, { html, failureSummary = "cannot be judged" }) => `${rule.id}: ${html} ${failureSummary}`;
  return [
    ...violations.filter(({ impact }) => impact === "serious" || impact === "critical")
      .flatMap((rule) => rule.nodes.map((node) => name(rule, node))),
    ...incomplete.filter(({ id }) => id === "color-contrast")
      .flatMap((rule) => rule.nodes.filter(isText).map((node) => name(rule, node))),
  ];
}
