use odometry::*; use std::time::Instant;
fn main(){
 let dir=std::env::args().nth(1).unwrap();
 let text=std::fs::read_to_string(format!("{dir}/list.txt")).unwrap();
 // each line: w h file
 let mut pics=vec![];
 for (i,l) in text.lines().enumerate(){ let mut p=l.split(' '); let w:usize=p.next().unwrap().parse().unwrap(); let h:usize=p.next().unwrap().parse().unwrap(); let f=p.next().unwrap();
  let g=Grey::new(w,h,std::fs::read(f).unwrap()).unwrap();
  let k=geometry::Intrinsics::new(w as f64,w as f64,w as f64/2.,h as f64/2.,w as u32,h as u32).unwrap();
  let t=Instant::now(); let pic=Picture::new(geometry::Stamp::from_nanos(i as i64),&k,&g).unwrap(); if i<2 {eprintln!("picture {:?}",t.elapsed());} pics.push(pic);}
 let arr:[Picture;5]=pics.try_into().unwrap();
 for _ in 0..3 {let t=Instant::now(); let tr=tracks::of_window(&arr); let full=tr.points.iter().filter(|p|p.iter().all(|x|x.is_some())).count(); eprintln!("tracks {} full {} per view {:?} {:?}",tr.points.len(),full,(0..5).map(|i|tr.seen_in(i)).collect::<Vec<_>>(),t.elapsed());}
}
