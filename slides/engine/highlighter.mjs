/** The classes of Python's words, on slides and in their editor. */
import { tagHighlighter, tags } from "@lezer/highlight";

export const highlighter = tagHighlighter([
  { tag: tags.keyword, class: "tok-keyword" },
  { tag: [tags.string, tags.special(tags.string), tags.escape], class: "tok-string" },
  { tag: [tags.comment, tags.docString], class: "tok-comment" },
  { tag: [tags.number, tags.bool, tags.null], class: "tok-number" },
  {
    tag: [
      tags.definition(tags.className),
      tags.definition(tags.variableName),
      tags.function(tags.definition(tags.variableName)),
    ],
    class: "tok-definition",
  },
  { tag: tags.meta, class: "tok-decorator" },
]);
