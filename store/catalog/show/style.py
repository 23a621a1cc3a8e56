"""How the page looks."""

STYLE = """
:root{--ink:#1d2430;--quiet:#5d687a;--line:#e3e7ee;--paper:#fff;--back:#f5f6f9;--bar:#5b7fd6;--over:#d9622b;--mark:#fff3e3}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--quiet:#98a2b3;--line:#333b48;--paper:#1c222c;--back:#12161d;
--bar:#7196ec;--over:#f08a55;--mark:#3a2d1b}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:28px 20px 60px;display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:16px}
header,.cards,.wide,.halves{grid-column:1/-1}
.halves{columns:2;column-gap:16px}.halves>section{break-inside:avoid;margin-bottom:16px}
h1{font-size:26px;margin:0;letter-spacing:-.01em}h2{font-size:16px;margin:0 0 2px}
h3{font-size:14px;margin:26px 0 8px;padding-top:14px;border-top:1px solid var(--line)}
p{margin:0 0 10px}.quiet{color:var(--quiet);font-weight:400}header p{margin:2px 0 0}
section,.card{background:var(--paper);border:1px solid var(--line);border-radius:10px}
section{padding:18px 20px;overflow-x:auto}
.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:12px}
.card{padding:12px 16px}.card b{display:block;font-size:22px;font-variant-numeric:tabular-nums}.card span{color:var(--quiet)}
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:500}
td,th{padding:5px 8px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td,tr:last-child th{border-bottom:0}
tr:first-child th{color:var(--quiet);font-weight:400}
td.num,th.num{text-align:right;font-variant-numeric:tabular-nums;padding-right:16px}
.numbers{margin-top:8px}.numbers td,.numbers th{text-align:right;font-variant-numeric:tabular-nums}
code{font:11.5px ui-monospace,Consolas,monospace;color:var(--quiet);font-weight:400}
tr.nothing th,tr.nothing td{color:var(--quiet)}
tr.apart{background:var(--mark)}
svg{width:100%;height:auto;display:block}svg text{fill:var(--quiet);font-size:11px}
.grid{stroke:var(--line)}.tick{stroke:var(--quiet)}.bar{fill:var(--bar)}.over{fill:none;stroke:var(--over);stroke-width:2}
.legend{display:flex;gap:16px;color:var(--quiet);margin:0}.legend i{display:inline-block;width:14px;margin-right:6px;vertical-align:middle}
.box{height:10px;background:var(--bar)}.line{height:2px;background:var(--over)}
.meter div{display:inline-block;width:calc(100% - 62px);height:8px;border-radius:4px;background:var(--line);overflow:hidden}
.meter i{display:block;height:100%;background:var(--bar)}
.meter span{float:right;font-variant-numeric:tabular-nums}.meter{padding-right:16px;width:40%}
.groups{display:grid;grid-template-columns:repeat(auto-fill,minmax(380px,1fr));gap:12px}
.group{border:1px solid var(--line);border-radius:8px;padding:10px 12px}.group p{font-size:12px;margin-bottom:8px;overflow-wrap:anywhere}
.rows{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:8px}
figure{margin:0;font-size:11.5px;line-height:1.35;overflow-wrap:anywhere}
img,.none{width:100%;aspect-ratio:1;object-fit:contain;border-radius:4px;background:#fff;border:1px solid var(--line);margin-bottom:4px}
figure img~img,figure img~.none{display:inline-block;width:48%}
.none{display:flex;align-items:center;justify-content:center;background:var(--back);color:var(--quiet);font-size:11px}
.more{color:var(--quiet);margin:6px 0 0}
@media (max-width:820px){main{grid-template-columns:1fr}.cards{grid-template-columns:repeat(2,1fr)}.groups{grid-template-columns:1fr}.halves{columns:1}}
@media (max-width:560px){main{padding:18px 10px 40px;gap:10px}section{padding:14px}svg text{font-size:17px}
td,th{padding-right:6px}td.num,th.num,.meter{padding-right:8px}.meter div{width:calc(100% - 60px)}
.numbers{font-size:12px}.numbers td,.numbers th{padding-right:0;padding-left:4px}}
"""
